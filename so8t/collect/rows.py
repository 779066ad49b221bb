"""One row of a foreign file as a `Record`, or the reason why it is none."""

import math
from typing import Any

from so8t.collect.licence import normal_form
from so8t.collect.media import Media, NotMedia, recognise
from so8t.labels import Label, parse_label
from so8t.records import Record

FIELDS = frozenset(
    {"id", "prompt", "response", "answer", "category", "label", "language", "group", "licence", "nsfw", "modality", "media"}
)  # fmt: skip
# How datasets of instructions name what is asked and answered; the first that fits counts.
LAYOUTS = (
    {"messages": "messages"},
    {"messages": "conversations"},
    {"prompt": "instruction", "response": "output"},
    {"prompt": "question", "response": "answer"},
    {"prompt": "prompt", "response": "response"},
    {"prompt": "prompt", "response": "completion"},
    {"prompt": "input", "response": "output"},
    {"prompt": "prompt"},
    {"prompt": "text"},
)
PROMPT_CHARACTERS_MAX = 20_000


class RowRefused(ValueError):
    """The row cannot become a record; the text is the reason kept beside it."""


def to_record(row: dict[str, Any], defaults: Record, media: Media | None = None) -> Record:
    """A row as a record; what the row lacks comes from `defaults`. RowRefused says what is wrong."""
    prompt = _text(row, "prompt")
    if not prompt.strip():
        raise RowRefused("no prompt")
    if len(prompt) > PROMPT_CHARACTERS_MAX:
        raise RowRefused(f"prompt longer than {PROMPT_CHARACTERS_MAX} characters")
    language = _text(row, "language") or defaults.language
    if language not in ("ja", "en"):
        raise RowRefused(f"language {language[:20]!r} is neither ja nor en")
    modality = media.modality if media else "text"
    stated = _text(row, "modality") or modality
    if stated != modality:
        raise RowRefused(f"it says that it is {stated[:20]}, and its media is {modality if media else 'absent'}")
    nsfw = _flag(row.get("nsfw"))
    label = _label(row.get("label"))
    group = _text(row, "group")
    return defaults.with_(
        id=_text(row, "id") or defaults.id,
        language=language,
        modality=modality,
        media=media.data if media else b"",
        media_type=media.type if media else "",
        prompt=prompt,
        response=_text(row, "response"),
        answer=_text(row, "answer"),
        category=_text(row, "category"),
        label=defaults.label if label is None else int(label),
        label_source=defaults.label_source if label is None else "human",
        label_confidence=defaults.label_confidence if label is None else 1.0,
        nsfw=nsfw,
        group=f"{defaults.source}:{group}" if group else "",
        licence=normal_form(row["licence"]) if row.get("licence") else defaults.licence,
        licence_evidence="stated by the row" if row.get("licence") else defaults.licence_evidence,
    )


def declared(label: str) -> dict[str, object]:
    """What a config's class for a whole source puts into its rows; nothing where it names none."""
    return {"label": int(parse_label(label)), "label_source": "rule", "label_confidence": 1.0} if label else {}


def layout(row: dict[str, Any]) -> dict[str, str]:
    """Our field -> column of a row of unknown make; {} where nothing fits, or where a second input would be lost."""
    found = next((known for known in LAYOUTS if set(known.values()) <= set(row)), {})
    return {} if found.get("prompt") == "instruction" and row.get("input") else dict(found)


def first_turn(messages: object) -> dict[str, Any]:
    """Prompt and response of a conversation: the first user's message and the answer to it. {} for no conversation."""
    if messages is None:
        return {}
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RowRefused("messages is no list of messages")
    said = [(str(one.get("role") or one.get("from")), one.get("content") or one.get("value") or "") for one in messages]
    for (asker, prompt), (answerer, response) in zip(said, [*said[1:], ("", "")], strict=True):
        if asker in ("user", "human"):
            return {"prompt": prompt, "response": response if answerer in ("assistant", "gpt") else ""}
    raise RowRefused("a conversation without a user's message")


def hub_media(value: object) -> Media | None:
    """The media of a row of a dataset: bytes, or a struct with `bytes`, as `datasets` stores them."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        return None
    if not isinstance(data, bytes):
        raise RowRefused("media is not stored in the row")
    try:
        return recognise(data)
    except NotMedia as error:
        raise RowRefused(str(error)) from None


def _flag(value: object) -> bool:
    """A CSV has no types."""
    words = {"": False, "false": False, "0": False, "true": True, "1": True}
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise RowRefused("nsfw is not true or false")


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
