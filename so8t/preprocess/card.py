"""The data card: what is in the data, what was removed and why, in JSON and in Markdown. No row's text is in it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from so8t.labels import LABEL_NAMES
from so8t.records import Record

SPLITS = ("train", "validation", "test")


def build(
    kept: list[Record],
    nsfw: list[Record],
    removed: list[tuple[Record, str]],
    sources: list[dict[str, Any]],
    notes: dict[str, Any],
) -> dict[str, Any]:
    """All counts as JSON; reasons are counted without the row that they name."""
    return {
        "rows": {split: sum(record.split == split for record in kept) for split in SPLITS}
        | {"nsfw": len(nsfw), "removed": len(removed)},
        "class": {
            split: _count(LABEL_NAMES[r.label] for r in kept if r.split == split and r.modality == "text")
            for split in SPLITS
        },
        "modality": {split: _count(r.modality for r in kept if r.split == split) for split in SPLITS},
        "language": {split: _count(r.language for r in kept if r.split == split) for split in SPLITS},
        "category": _count(r.category for r in kept),
        "licence": _count(r.licence for r in kept),
        "groups": len({r.group for r in kept}),
        "removed": _count(general(reason) for _, reason in removed),
        "sources": [
            {key: source.get(key) for key in ("name", "id", "revision", "rows", "passed", "licences", "evidence")}
            for source in sources
        ],
        **notes,
    }


def general(reason: str) -> str:
    """The reason without the particulars of one row."""
    return reason.partition(" of ")[0].partition(",")[0].partition(":")[0]


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


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
    lines += ["", "Rows flagged NSFW lie in a file of their own; only detection and refusal targets may read it.", ""]
    return "\n".join(lines)
