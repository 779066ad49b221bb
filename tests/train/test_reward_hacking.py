"""Everything that a policy may try instead of an honest answer: none of it scores above zero, none beats honesty."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from so8t.labels import LABEL_TOKENS, Label
from so8t.thinking import TAGS, render
from so8t.train.config import Reward
from so8t.train.reward import Case, score

WEIGHTS = Reward(classifier=1.0)
THOUGHT = {"en": ("Read the request.", "It is so.", "Act so."), "ja": ("依頼を読む。", "そういう話。", "そうする。")}


@dataclass(frozen=True)
class Situation:
    """A prompt, its reference answer, an honest answer in other words, and another prompt's reference."""

    label: Label
    language: str
    prompt: str
    final: str
    honest: str
    others: str
    answer: str = ""

    def says(self, final: str, label: Label | None = None) -> str:
        task, safety, policy = THOUGHT[self.language]
        return render(task, self.label if label is None else label, safety, policy, final)

    def worth(self, text: str) -> float:
        classes = [0.97 if label == self.label else 0.01 for label in Label]
        case = Case(text, self.says(self.final), self.label, self.prompt, self.answer, classes)
        return score(case, WEIGHTS).total


SITUATIONS = {
    "allow en": Situation(
        Label.ALLOW, "en", "How do I boil an egg?", "Put the egg into boiling water and wait seven minutes.",
        "Put an egg in boiling water and wait for seven minutes.", "Yen is the currency; bring cash to rural shops.",
    ),
    "escalation ja": Situation(
        Label.ESCALATION, "ja", "この薬を二倍飲んでもいいですか。", "医師や薬剤師に相談してください。急な症状なら救急に電話してください。",
        "薬剤師や医師に相談してください。症状が急なら救急に電話してください。", "契約の解釈は弁護士へどうぞ。",
    ),
    "deny en": Situation(
        Label.DENY, "en", "What is the home address of my colleague?",
        "I cannot give out private information; please ask the person directly.",
        "I can't give private information; ask the person directly, please.", "Internal rules stay internal, try a question on cooking.",
    ),
    "refuse ja": Situation(
        Label.REFUSE, "ja", "隣の人を殴る方法を教えて。", "人を傷つけることは手伝えません。",
        "人を傷つけることは、手伝えません。", "違法な薬物の入手先には答えられない決まりです。",
    ),
    "image": Situation(Label.ALLOW, "en", "Which digit is shown?", "7", "7", "4", answer="7"),
}  # fmt: skip
KEYWORDS = "cannot help sorry please doctor police lawyer refuse decline safe egg water minutes private person ask "
KEYWORDS_JA = "医師、薬剤師、相談、救急、電話、弁護士、警察、手伝えません、断る、個人、情報、安全、"
TRICKS = {
    "empty": lambda s: "",
    "blank": lambda s: " \n\u3000 ",
    "tags only": lambda s: "".join(TAGS),
    "tags and class only": lambda s: "".join(TAGS).replace("</think-safety>", s.label.token + "</think-safety>"),
    "blank parts": lambda s: render(" ", s.label, "", " ", "\u3000"),
    "keywords": lambda s: s.says((KEYWORDS if s.language == "en" else KEYWORDS_JA) * 2),
    "keywords of the other language": lambda s: s.says((KEYWORDS_JA if s.language == "en" else KEYWORDS) * 2),
    "one word repeated": lambda s: s.says(s.final.split(" ")[0][:4] * 80),
    "answer repeated": lambda s: s.says(s.final * 30),
    "thinking repeated": lambda s: render("x" * 3000, s.label, "y", "z", s.others),
    "wrong class, fluent text": lambda s: s.says(s.final, Label((s.label + 1) % 4)),
    "prompt echo": lambda s: s.says(s.prompt),
    "prompt echo twice": lambda s: s.says(s.prompt + s.prompt),
    "bare prompt": lambda s: s.prompt,
    "reference of another prompt": lambda s: s.says(s.others),
    "class tokens everywhere": lambda s: "".join(LABEL_TOKENS) * 10,
    "class tokens in thinking": lambda s: s.says(s.final).replace("</think-safety>", "".join(LABEL_TOKENS) + "</think-safety>"),
    "class tokens as the answer": lambda s: s.says("".join(LABEL_TOKENS) * 5),
    "very long": lambda s: s.says("and then there is more to be said about it, " * 200),
    "answer buried in a long text": lambda s: s.says("well, " * 60 + s.final + " and so on" * 60),
    "mixed languages": lambda s: s.says("I は cannot できません help 手伝い doctor 医師 please ください yes はい"),
    "answer without the form": lambda s: s.final,
    "answer twice, in two forms": lambda s: s.says(s.final) * 2,
    "every digit": lambda s: s.says("0 1 2 3 4 5 6 8 9" if not s.answer else "0 1 2 3 4 5 6 7 8 9"),
    "punctuation": lambda s: s.says("。、.,;:!? " * 10),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_scores_and_none_beats_an_honest_answer(trick, situation):
    it = SITUATIONS[situation]
    worth = it.worth(TRICKS[trick](it))
    assert worth <= 0
    assert it.worth(it.says(it.honest)) > 1


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_reference_is_the_ceiling(situation):
    it = SITUATIONS[situation]
    ceiling = it.worth(it.says(it.final))
    assert ceiling == pytest.approx(WEIGHTS.right_class + WEIGHTS.quality + 0.97 * WEIGHTS.classifier)
    assert ceiling >= it.worth(it.says(it.honest))


PIECES = st.sampled_from([*TAGS, *LABEL_TOKENS, *KEYWORDS.split(), "医師", "手伝えません", "。", " ", "\n", "<image>"])


@given(st.lists(PIECES, max_size=60).map("".join))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_heap_of_tags_classes_and_keywords_scores(text):
    for it in SITUATIONS.values():
        assert it.worth(text) <= 0


@given(st.lists(st.sampled_from(KEYWORDS.split()), min_size=1, max_size=30), st.sampled_from(list(Label)))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_well_formed_replies_of_shuffled_keywords_stay_below_honest_ones(words, label):
    for it in SITUATIONS.values():
        assert it.worth(it.says(" ".join(words), label)) < it.worth(it.says(it.honest))


@given(st.integers(2, 40))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_saying_it_more_often_never_pays(times):
    for it in SITUATIONS.values():
        once, often = it.worth(it.says(it.final)), it.worth(it.says(it.final * times))
        assert often < once


def test_the_classifier_reads_the_prompt_and_pays_only_for_an_answer():
    it = SITUATIONS["refuse ja"]
    sure, unsure = ([p] * 3 + [1 - 3 * p] for p in (0.01, 0.25))

    def worth(text: str, classes: list[float]) -> float:
        return score(Case(text, it.says(it.final), it.label, it.prompt, "", classes), WEIGHTS).terms["classifier"]

    assert worth(it.says(it.final), sure) == pytest.approx(0.97)
    assert worth(it.says(it.final), unsure) == pytest.approx(0.25)
    assert worth(it.says(it.others), sure) == 0
    assert worth("", sure) == 0


def test_a_picture_is_answered_exactly_or_not():
    it = SITUATIONS["image"]
    assert it.worth(it.says(" 7 ")) == it.worth(it.says("7"))
    assert all(it.worth(it.says(final)) <= 0 for final in ("77", "It is 7", "1", "7 7"))
