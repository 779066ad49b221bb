"""The licence gate: every licence that is stated must be an allowed one; none, or an unknown one, is refused."""

from collections.abc import Iterable
from dataclasses import dataclass

SEPARATOR = "; "


@dataclass(frozen=True)
class Decision:
    """What the gate said of one statement. `licence` is the normal form, `reason` is empty where it passes."""

    licence: str
    reason: str

    @property
    def allowed(self) -> bool:
        """Whether the data may be used."""
        return not self.reason


def normal_form(stated: object) -> str:
    """A card's licence field as one string: values stripped, lower case, sorted, joined by `; `; "" for none."""
    values = stated if isinstance(stated, list | tuple) else [stated]
    parts = [part for value in values if value is not None for part in str(value).split(SEPARATOR.strip())]
    return SEPARATOR.join(sorted({part.strip().lower() for part in parts if part.strip()}))


def decide(stated: object, allowed: Iterable[str]) -> Decision:
    """Judge what a card or a row states: None, a string, or a list, in any case, padded or not."""
    licence = normal_form(stated)
    if not licence:
        return Decision("", "no licence stated")
    allow = {name.strip().lower() for name in allowed}
    outside = [name for name in licence.split(SEPARATOR) if name not in allow]
    return Decision(licence, f"licence not allowed: {SEPARATOR.join(outside)}" if outside else "")


def disagreement(statements: dict[str, object]) -> str:
    """Why the places that state a licence (card, tags, file) contradict each other; "" if they do not.

    A place that states nothing contradicts nobody, except a card without the licence that its tags carry.
    """
    forms = {place: normal_form(stated) for place, stated in statements.items()}
    stated = {form for form in forms.values() if form}
    if len(stated) > 1 or (stated and not forms.get("card", "x")):
        return "places disagree: " + ", ".join(
            f"{place} says {form or 'nothing'}" for place, form in sorted(forms.items())
        )
    return ""
