"""A cell's results as lines of JSON: one an item, in the order of the ids."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.benchmark.items import Item, extract
from so8t.benchmark.prompts import Tokenizer, Unanswerable
from so8t.benchmark.task import Generate, Rate
from so8t.benchmark.writing import chrf
from so8t.thinking import TAGS, parse

Line = dict[str, Any]
NOT_FINITE = "a log-probability is not finite"
_TAG = re.compile("|".join(re.escape(tag) for tag in TAGS))


def chosen_lines(items: Sequence[Item], scores: Mapping[str, list[float]], failed: Mapping[str, str]) -> list[Line]:
    """Lines of a task that compares choices. Status is `ok` or `error`; an error has no answer."""
    lines = []
    for item in items:
        logprobs = scores.get(item.id, [])
        weighed = [
            value / divisor for value, divisor in zip(logprobs, item.divisors or (1.0,) * len(logprobs), strict=True)
        ]
        best = max(range(len(weighed)), key=lambda k: (weighed[k], -k), default=None)
        line = _line(item, "" if best is not None else _why(item, failed, NOT_FINITE))
        line["predicted"] = "" if best is None else item.names[best]
        line["logprobs"] = dict(zip(item.names, weighed, strict=False))
        lines.append(line)
    return lines


def written_lines(
    task: Generate | Rate,
    items: Sequence[Item],
    replies: Mapping[str, tuple[list[int], bool]],
    failed: Mapping[str, str],
    tokenizer: Tokenizer,
) -> list[Line]:
    """Lines of a task that is answered in writing: what the user would be shown, and the answer found in it."""
    lines = []
    for item in items:
        ids, ended = replies.get(item.id, ([], False))
        text = tokenizer.decode(ids)
        final = shown(text)
        line = _line(item, "" if item.id in replies else _why(item, failed, "no reply"))
        line["predicted"] = extract(task, final) if isinstance(task, Generate) else ""
        line |= {"ids": ids, "text": text, "shown": final, "ended": ended, "tagged": _TAG.search(text) is not None}
        if isinstance(task, Rate):
            line["chrf"] = chrf(final, item.reference)
        lines.append(line)
    return lines


def shown(text: str) -> str:
    """What a reply comes to for its reader: its final part; nothing of a malformed thinking; all of a plain text."""
    if not _TAG.search(text):
        return text.strip()
    parsed = parse(text)
    return parsed.final.strip() if parsed else ""


def _line(item: Item, error: str) -> Line:
    return {
        "id": item.id,
        "language": item.language,
        "category": item.category,
        "truth": item.truth,
        "predicted": "",
        "ids_sha256": "" if isinstance(item.asked, Unanswerable) else item.asked.ids_sha256,
        "status": "error" if error else "ok",
        "error": error,
    }


def _why(item: Item, failed: Mapping[str, str], otherwise: str) -> str:
    if isinstance(item.asked, Unanswerable):
        return item.asked.why
    return failed.get(item.id, otherwise)


def write_jsonl(path: Path, lines: Sequence[Line]) -> None:
    """One JSON object a line, keys sorted."""
    text = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n" for line in lines)
    durable.write_text(path, text)


def read_jsonl(path: Path) -> list[Line]:
    """Every line of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
