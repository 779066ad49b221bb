"""The four safety classes: names, precedence and tokens, written once."""

from enum import IntEnum


class Label(IntEnum):
    """A class; the higher value wins when several apply."""

    ALLOW = 0
    ESCALATION = 1
    DENY = 2
    REFUSE = 3

    @property
    def token(self) -> str:
        """The spare vocabulary row that stands for this class."""
        return f"<|{self.name.lower()}|>"


LABEL_TOKENS = tuple(label.token for label in Label)
LABEL_NAMES = tuple(label.name for label in Label)


def parse_label(name: str) -> Label:
    """Read a class name in any case; ValueError names the four that exist."""
    try:
        return Label[name.strip().upper()]
    except KeyError:
        raise ValueError(f"unknown class {name!r}; the classes are {', '.join(LABEL_NAMES)}") from None


def precedent(labels: list[Label]) -> Label:
    """The class that wins when several apply; none at all is ESCALATION, never ALLOW."""
    return max(labels, default=Label.ESCALATION)
