"""Does the training split hold a task's questions? Recorded in the report; nothing is removed here.

Character 13-grams of NFKC, lower-cased letters and digits, the overlap analysis of GPT-3 (arXiv 2005.14165, appendix C)
for a language without spaces. `share`: of a question's 13-grams, how many stand anywhere in the training split; a
question shorter than 13 characters is looked for whole.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from so8t.records import Record

LENGTH = 13
FLAGGED, CERTAIN = 0.3, 0.8


def normal(text: str) -> str:
    """Letters and digits alone, in one form."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def grams(key: str) -> set[str]:
    """All 13-grams of a key; the key itself where it is shorter."""
    return {key[i : i + LENGTH] for i in range(len(key) - LENGTH + 1)} if len(key) >= LENGTH else {key} - {""}


def check(questions: Mapping[str, str], rows: Iterable[Record]) -> dict[str, Any]:
    """How many questions (text by id) the rows hold: flagged from a share of .3, certain from .8."""
    wanted = {item_id: grams(normal(text)) for item_id, text in questions.items()}
    where: dict[str, set[str]] = defaultdict(set)
    for item_id, parts in wanted.items():
        for part in parts:
            where[part].add(item_id)
    short = [part for part in where if len(part) < LENGTH]
    seen: set[str] = set()
    for row in rows:
        key = normal(f"{row.prompt} {row.response}")
        seen.update(gram for gram in grams(key) if gram in where)
        seen.update(part for part in short if part in key)
    shares = {item_id: len(parts & seen) / len(parts) for item_id, parts in wanted.items() if parts}
    return {
        "items": len(questions),
        "flagged": sorted(item_id for item_id, share in shares.items() if share >= FLAGGED),
        "certain": sum(share >= CERTAIN for share in shares.values()),
        "flagged_from": FLAGGED,
        "certain_from": CERTAIN,
    }
