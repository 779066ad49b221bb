"""One row of a foreign file as a `Record`, or the reason why it is none."""

import math
from typing import Any

from so8t.collect.licence import normal_form
from so8t.labels import Label, parse_label
from so8t.records import Record

FIELDS = frozenset(
    {"id", "prompt", "response", "answer", "category", "label", "language", "group", "licence", "nsfw", "modality"}
)  # fmt: skip
PROMPT_CHARACTERS_MAX = 20_000


class RowRefused(ValueError):
    """The row cannot become a record; the text is the reason kept beside it."""


def to_record(row: dict[str, Any], defaults: Record) -> Record:
    """A text row as a record; what the row lacks comes from `defaults`. RowRefused says what is wrong."""
    prompt = _text(row, "prompt")
    if not prompt.strip():
        raise RowRefused("no prompt")
    if len(prompt) > PROMPT_CHARACTERS_MAX:
        raise RowRefused(f"prompt longer than {PROMPT_CHARACTERS_MAX} characters")
    language = _text(row, "language") or defaults.language
    if language not in ("ja", "en"):
        raise RowRefused(f"language {language[:20]!r} is neither ja nor en")
    if (_text(row, "modality") or "text") != "text":
        raise RowRefused("only text rows come without media")
    nsfw = row.get("nsfw") or False
    if not isinstance(nsfw, bool):
        raise RowRefused("nsfw is not true or false")
    label = _label(row.get("label"))
    group = _text(row, "group")
    return defaults.with_(
        id=_text(row, "id") or defaults.id,
        language=language,
        prompt=prompt,
        response=_text(row, "response"),
        answer=_text(row, "answer"),
        category=_text(row, "category"),
        label=-1 if label is None else int(label),
        label_source="" if label is None else "human",
        label_confidence=0.0 if label is None else 1.0,
        nsfw=nsfw,
        group=f"{defaults.source}:{group}" if group else "",
        licence=normal_form(row["licence"]) if "licence" in row else defaults.licence,
        licence_evidence="stated by the row" if "licence" in row else defaults.licence_evidence,
    )


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and name != "prompt":
        return str(value)
    raise RowRefused(f"{name} is {type(value).__name__}, not text")


def _label(value: object) -> Label | None:
    if value is None or value == "" or (isinstance(value, int) and value == -1):
        return None
    try:
        return parse_label(value) if isinstance(value, str) else Label(value)  # type: ignore[arg-type]
    except ValueError:
        raise RowRefused(f"unknown label {str(value)[:20]!r}") from None
