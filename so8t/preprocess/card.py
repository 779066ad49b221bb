"""The data card: what is in the data, what was removed and why, in JSON and in Markdown. No row's text is in it."""

from collections import Counter
from typing import Any

from so8t.labels import LABEL_NAMES
from so8t.preprocess.balance import balance, sentences
from so8t.preprocess.index import SPLITS
from so8t.records import Record


class Counts:
    """What is counted while rows are written."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()  # by split or pool
        self.by_split = {
            kind: {split: Counter[str]() for split in SPLITS} for kind in ("class", "modality", "language")
        }
        self.kept = {kind: Counter[str]() for kind in ("category", "licence")}
        self.reasons, self.without_reply, self.model_labelled = (Counter[str]() for _ in range(3))
        self.groups = 0  # different ones

    def add(self, file: str, record: Record, reason: str, language: str) -> None:
        """A row that ended in this file."""
        if file == "removed":
            self.reasons[general(reason)] += 1
        if file == "model_labelled":
            self.model_labelled[record.klass.name] += 1
        if file in ("removed", "nsfw", "model_labelled"):
            self.rows[file] += 1
            return
        self.rows[record.split] += 1
        if record.modality == "text":
            self.by_split["class"][record.split][LABEL_NAMES[record.label]] += 1
        self.by_split["modality"][record.split][record.modality] += 1
        self.by_split["language"][record.split][language] += 1
        self.kept["category"][record.category] += 1
        self.kept["licence"][record.licence] += 1
        self.without_reply[record.klass.name] += not record.response


def build(counts: Counts, sources: list[dict[str, Any]], notes: dict[str, Any]) -> dict[str, Any]:
    """All counts as JSON; reasons are counted without the row that they name."""
    return {
        "rows": {name: counts.rows[name] for name in (*SPLITS, "nsfw", "removed")},
        **{
            kind: {split: _sorted(found) for split, found in splits.items()} for kind, splits in counts.by_split.items()
        },
        "class_balance": balance(counts.by_split["class"]),
        **{kind: _sorted(found) for kind, found in counts.kept.items()},
        "groups": counts.groups,
        "removed": _sorted(counts.reasons),
        "without_reply": _sorted(+counts.without_reply),
        "model_labelled": _sorted(counts.model_labelled),
        "sources": [
            {key: source.get(key) for key in ("name", "id", "revision", "rows", "passed", "licences", "evidence")}
            for source in sources
        ],
        **notes,
    }


def general(reason: str) -> str:
    """The reason without the particulars of one row."""
    return reason.partition(" of ")[0].partition(",")[0].partition(":")[0]


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def markdown(card: dict[str, Any]) -> str:
    """The card for people."""
    lines = ["# Data card", "", "## Rows", "", "| split | rows |", "|---|---|"]
    lines += [f"| {name} | {rows} |" for name, rows in card["rows"].items()]
    for title in ("class", "modality", "language"):
        columns = sorted({name for counts in card[title].values() for name in counts})
        lines += ["", f"## By {title}" + (" (text only)" if title == "class" else ""), ""]
        lines += ["| split | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        lines += [
            f"| {split} | " + " | ".join(str(card[title][split].get(c, 0)) for c in columns) + " |" for split in SPLITS
        ]
        lines += ["", *sentences(card["class_balance"])] if title == "class" else []
    for title, key in (
        ("Licences", "licence"),
        ("Categories", "category"),
        ("Removed, by reason", "removed"),
        ("Personal data masked", "masked"),
    ):
        lines += ["", f"## {title}", "", "| | rows |" if key != "masked" else "| kind | places |", "|---|---|"]
        lines += [f"| {name} | {count} |" for name, count in card[key].items()]
    lines += ["", "## Sources", ""]
    for source in card["sources"]:
        attribution = (source["evidence"] or {}).get("attribution")
        lines.append(
            f"- {source['name']}: {source['id']} at {source['revision']}, {source['passed']} of {source['rows']} rows passed the licence gate"
            + (f". {attribution}" if attribution else "")
        )
    lines += [
        "",
        "## Labels",
        "",
        *(f"- {name}: {value}" for name, value in (card["labeller"] or {"labeller": "too few labelled rows"}).items()),
    ]
    lines += [f"- rows that the labeller contradicts, listed in data_card.json: {len(card['review'])}"]
    lines += [f"- rows for a person to look at, listed in active.csv: {card['active']}"]
    lines += [
        f"- {name.replace('_', ' ')} in the file of human labels: {count}"
        for name, count in card["human_labels"].items()
    ]
    if card["placed_earlier"]:
        lines += ["", f"{card['placed_earlier']} rows keep the splits that an earlier artifact gave them."]
    lines += ["", "Rows flagged NSFW lie in a file of their own; only detection and refusal targets may read it.", ""]
    return "\n".join(lines)
