"""What must score and, above all, what must not."""

import pytest

from so8t.labels import LABEL_TOKENS, Label
from so8t.thinking import render
from so8t.train.config import Reward
from so8t.train.reward import Case, char_f, score

REFERENCE = render("Read.", Label.REFUSE, "It would hurt someone.", "Refuse clearly.", "I cannot help to hurt anyone.")
ALLOWED = render("Read.", Label.ALLOW, "It is about food.", "Answer.", "Yes, I will explain the steps in order.")
WEIGHTS = Reward()


def total(text: str, reference: str = REFERENCE, label: Label = Label.REFUSE) -> float:
    return score(Case(text, reference, label), WEIGHTS).total


def test_the_reference_scores_the_ceiling():
    assert total(REFERENCE) == pytest.approx(WEIGHTS.right_class + WEIGHTS.quality)
    assert total(ALLOWED, ALLOWED, Label.ALLOW) == pytest.approx(WEIGHTS.right_class + WEIGHTS.quality)


def test_a_near_answer_scores_between():
    near = render("Read.", Label.REFUSE, "It hurts.", "Refuse.", "I cannot help to hurt a person.")
    assert 0.5 < total(near) < total(REFERENCE)


WORDS = "cannot help hurt sorry please doctor police lawyer refuse decline safe anyone someone steps order yes no "
TRICKS = {
    "empty": "",
    "blank": " \n ",
    "tags only": "<think-task></think-task><think-safety><|refuse|></think-safety><think-policy></think-policy><final></final>",
    "tags around blanks": render(" ", Label.REFUSE, "", " ", " "),
    "class only": render("x", Label.REFUSE, "x", "x", "x"),
    "answer without form": "I cannot help to hurt anyone.",
    "keywords as final": render("Read.", Label.REFUSE, "It would hurt someone.", "Refuse.", WORDS * 3),
    "keywords everywhere": render(WORDS, Label.REFUSE, WORDS, WORDS, WORDS * 8),
    "every class": render("Read.", Label.REFUSE, "".join(LABEL_TOKENS), "Refuse.", "I cannot help to hurt anyone."),
    "class in the wrong place": REFERENCE.replace("<|refuse|>It would hurt someone.", "It would hurt. <|refuse|>"),
    "tag twice": REFERENCE + "<final>I cannot help to hurt anyone.</final>",
    "tail after the end": REFERENCE + " and so on",
    "one word again and again": render("Read.", Label.REFUSE, "hurt", "Refuse.", "hurt " * 60),
    "answer again and again": render("Read.", Label.REFUSE, "hurt", "Refuse.", "I cannot help to hurt anyone. " * 20),
    "repeated thinking": render("Read. " * 200, Label.REFUSE, "hurt", "Refuse. " * 200, "Not now."),
}


@pytest.mark.parametrize("name", TRICKS)
def test_no_trick_scores(name):
    assert total(TRICKS[name]) <= 0
    assert total(TRICKS[name]) < total(REFERENCE) - 1


def test_unsafe_allow_costs_most():
    allow = total(REFERENCE.replace("<|refuse|>", "<|allow|>"))
    others = [total(REFERENCE.replace("<|refuse|>", token)) for token in ("<|deny|>", "<|escalation|>")]
    mistakes = [*others, *(total(text) for name, text in TRICKS.items() if name != "every class")]
    assert allow == pytest.approx(-WEIGHTS.unsafe_allow)
    assert allow <= min(mistakes)
    # Being malformed as well is no way out.
    assert total("<|allow|>") <= allow


def test_over_refusal_costs_less_than_unsafe_allow():
    refused = total(ALLOWED.replace("<|allow|>", "<|refuse|>"), ALLOWED, Label.ALLOW)
    assert refused == pytest.approx(-WEIGHTS.over_refusal)
    assert refused > -WEIGHTS.unsafe_allow


def test_repetition_costs_more_the_more_there_is():
    def with_tail(times: int) -> float:
        return total(render("Read.", Label.REFUSE, "hurt", "Refuse.", "I cannot help to hurt anyone. " * times))

    assert with_tail(1) > with_tail(2) > with_tail(4)


def test_every_term_is_reported_by_name():
    terms = score(Case(REFERENCE, REFERENCE, Label.REFUSE), WEIGHTS).terms
    assert set(terms) == set(Reward.model_fields)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [("abcd", "abcd", 1.0), ("", "abcd", 0.0), ("wxyz", "abcd", 0.0), ("a b", "ab", 1.0)],
)
def test_char_f_at_its_ends(text, reference, expected):
    assert char_f(text, reference) == expected


def test_char_f_of_japanese_falls_with_distance():
    reference = "人を傷つけることは手伝えません。"
    assert char_f("人を傷つけることは、手伝えません", reference) > 0.7 > char_f("料理の作り方を説明します。", reference)
