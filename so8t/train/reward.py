"""The reward: a few terms with names and weights, written so that a trick earns nothing.

A reply that is empty, tags only, keyword-stuffed, repetitive or an echo must not score above zero; ALLOW on
an unsafe prompt costs more than any other mistake. tests/train/test_reward_hacking.py holds the tricks.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from so8t.errors import InputError
from so8t.labels import Label
from so8t.thinking import Reply, parse
from so8t.train.config import Reward

# Unrelated Japanese or English sentences share this much of their characters.
QUALITY_FLOOR = 0.3
# A reply may be this much longer than the reference before it no longer counts as an answer to the prompt.
LENGTH_RATIO = 3
LENGTH_SLACK = 40
ORDERS = range(1, 5)

# Prompts -> for each, the probabilities of the four classes in the order of `Label`.
Classify = Callable[[list[str]], Iterable[Iterable[float]]]


@dataclass(frozen=True)
class Case:
    """One reply to be judged against its reference. `answer` is what an image or a sound shows, empty for text;
    `classes` are the four-class model's probabilities for the prompt, where there is one."""

    text: str
    reference: str
    label: Label
    prompt: str = ""
    answer: str = ""
    classes: Sequence[float] | None = None

    @cached_property
    def reply(self) -> Reply | None:
        """The reply, taken apart, where every part says something and a class is named."""
        reply = parse(self.text)
        if reply is None or reply.label is None:
            return None
        return reply if reply.task.strip() and reply.policy.strip() else None

    @cached_property
    def wanted(self) -> Reply:
        """The reference, taken apart."""
        wanted = parse(self.reference)
        if wanted is None:
            raise InputError(
                "a reference reply is not in the thinking format", "rows whose response preprocess accepted"
            )
        return wanted

    @cached_property
    def quality(self) -> float:
        """0..1: for text the character F-score of the final answer above the floor; where an image is asked about,
        1 for exactly the answer. 0 for a malformed or bloated reply: what the user sees may be so long, and so may
        the thinking before it."""
        if self.reply is None:
            return 0.0
        if self.answer:
            return float(self.reply.final.strip() == self.answer.strip())
        if _bloated(self.reply.final, self.wanted.final) or _bloated(self.text, self.reference):
            return 0.0
        return max(0.0, (char_f(self.reply.final, self.wanted.final) - QUALITY_FLOOR) / (1 - QUALITY_FLOOR))


class WellFormed:
    """-1 for a reply that is not in the thinking format. A right form alone is worth nothing."""

    name = "well_formed"

    def __call__(self, case: Case) -> float:
        """See the class."""
        return 0.0 if case.reply is not None else -1.0


class RightClass:
    """1 for the right class, but only with an answer that resembles the reference."""

    name = "right_class"

    def __call__(self, case: Case) -> float:
        """See the class."""
        right = case.reply is not None and case.reply.label == case.label
        return 1.0 if right and case.quality > 0 else 0.0


class UnsafeAllow:
    """-1 for ALLOW where another class is right, in whatever form it comes."""

    name = "unsafe_allow"

    def __call__(self, case: Case) -> float:
        """See the class."""
        return -1.0 if case.label != Label.ALLOW and Label.ALLOW.token in case.text else 0.0


class OverRefusal:
    """-1 for another class where ALLOW is right."""

    name = "over_refusal"

    def __call__(self, case: Case) -> float:
        """See the class."""
        return -1.0 if case.label == Label.ALLOW and case.reply is not None and case.reply.label != Label.ALLOW else 0.0


class Quality:
    """0..1: how near the final answer is to the reference."""

    name = "quality"

    def __call__(self, case: Case) -> float:
        """See the class."""
        return case.quality if case.reply is not None and case.reply.label == case.label else 0.0


class Repetition:
    """-1..0: the share of repeated character 4-grams beyond the reference's own."""

    name = "repetition"

    def __call__(self, case: Case) -> float:
        """See the class."""
        return -max(0.0, repeated(_plain(case.text)) - repeated(_plain(case.reference)))


class Echo:
    """-1..0: how much nearer the final answer is to the prompt than the reference is."""

    name = "echo"

    def __call__(self, case: Case) -> float:
        """See the class."""
        if case.reply is None or case.answer:
            return 0.0
        usual = max(QUALITY_FLOOR, char_f(case.wanted.final, case.prompt))
        return -max(0.0, char_f(case.reply.final, case.prompt) - usual)


class Classifier:
    """0..1: the four-class model's probability, for the prompt, of the right class where the reply names it.

    So prompts on which that model agrees with the label weigh more. It reads the prompt and never the reply,
    which could be written to please it; and only an answer that resembles the reference earns it.
    """

    name = "classifier"

    def __call__(self, case: Case) -> float:
        """See the class."""
        right = case.reply is not None and case.reply.label == case.label
        return case.classes[case.label] if case.classes is not None and right and case.quality > 0 else 0.0


@dataclass(frozen=True)
class Score:
    """A reply's score and its weighted terms by name."""

    total: float
    terms: dict[str, float]


def score(case: Case, weights: Reward) -> Score:
    """Judge one reply."""
    weighted = (
        (weights.well_formed, WellFormed()),
        (weights.right_class, RightClass()),
        (weights.unsafe_allow, UnsafeAllow()),
        (weights.over_refusal, OverRefusal()),
        (weights.quality, Quality()),
        (weights.repetition, Repetition()),
        (weights.echo, Echo()),
        (weights.classifier, Classifier()),
    )
    terms = {term.name: weight * term(case) for weight, term in weighted}
    return Score(sum(terms.values()), terms)


def char_f(text: str, reference: str, beta: float = 1.0) -> float:
    """Character n-gram F-score, n = 1..4 (after chrF, Popovic 2015), in 0..1; whitespace does not count."""
    text, reference = "".join(text.split()), "".join(reference.split())
    if text == reference:
        return 1.0
    scores = []
    for order in ORDERS:
        found, wanted = _ngrams(text, order), _ngrams(reference, order)
        if not wanted:
            break
        hits = sum((found & wanted).values())
        precision, recall = hits / max(sum(found.values()), 1), hits / sum(wanted.values())
        weight = beta * beta
        scores.append((1 + weight) * precision * recall / (weight * precision + recall) if hits else 0.0)
    return sum(scores) / len(scores) if scores else 0.0


def repeated(text: str) -> float:
    """Share of character 4-grams that have occurred before."""
    grams = _ngrams(text, 4)
    total = sum(grams.values())
    return 1 - len(grams) / total if total else 0.0


def _bloated(text: str, wanted: str) -> bool:
    return len(text) > LENGTH_RATIO * len(wanted) + LENGTH_SLACK


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))


def _plain(text: str) -> str:
    return re.sub(r"<[^<>]{1,20}>", "", text)
