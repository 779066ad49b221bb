"""Are the classes shared out alike? A hash of the group places rows, so no quota holds: what came of it is measured."""

from collections.abc import Mapping
from typing import Any

from so8t.records import Split


def balance(by_split: Mapping[Split, Mapping[str, int]]) -> dict[str, Any]:
    """From rows by split and class: how far a class's share of a split lies from its share of all rows at most (0 to 1),
    which one that is, and the classes that a split lacks although another has them.
    """
    classes = sorted({name for counts in by_split.values() for name, rows in counts.items() if rows})
    rows = {split: sum(counts.values()) for split, counts in by_split.items()}
    whole = sum(rows.values())
    deviations = {
        f"{name} in {split}": counts.get(name, 0) / rows[split] - sum(c.get(name, 0) for c in by_split.values()) / whole
        for split, counts in by_split.items()
        for name in classes
        if rows[split]
    }
    worst = max(deviations, key=lambda place: abs(deviations[place]), default="")
    return {
        "largest_deviation": round(deviations.get(worst, 0.0), 4),
        "where": worst,
        "absent": [
            f"{name} in {split}" for split, counts in by_split.items() for name in classes if not counts.get(name)
        ],
    }


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The same in words, for the card; a warning for each class that a split lacks."""
    said = [
        f"WARNING: no row of the class {place}: collect more rows of it, or change preprocess.seed"
        for place in found["absent"]
    ]
    if found["where"]:
        said.append(
            f"Largest distance of a class's share of a split from its share of all rows: "
            f"{100 * found['largest_deviation']:+.1f} points ({found['where']})."
        )  # fmt: skip
    return said
