import pytest
from hypothesis import given
from hypothesis import strategies as st

from so8t.labels import Label, parse_label, precedent
from so8t.thinking import ADDED_TOKENS, TAGS, parse, render

plain = st.text(alphabet=st.characters(blacklist_characters="<>", blacklist_categories=("Cs",)), max_size=30)


@given(plain, st.sampled_from(list(Label)), plain, plain, plain)
def test_round_trip(task, label, safety, policy, final):
    reply = parse(render(task, label, safety, policy, final))
    if not final.strip():
        assert reply is None
    else:
        assert reply is not None
        assert (reply.task, reply.label, reply.policy, reply.final) == (task, label, policy, final)


GOOD = render("t", Label.DENY, "s", "p", "f")


@pytest.mark.parametrize(
    "text",
    [
        "", "plain answer", "<final>f</final>", GOOD + "<final>again</final>", GOOD.replace("</final>", ""),
        GOOD.replace("<final>f", "<final> "), "leak " + GOOD, GOOD + " leak",
        GOOD.replace("<think-task>", "<think-policy>"), "".join(reversed(TAGS)),
    ],
)  # fmt: skip
def test_malformed_is_none(text):
    assert parse(text) is None


@pytest.mark.parametrize("safety", ["", "ALLOW", "<|allow|><|deny|>", "x<|allow|>"])
def test_unclear_class_is_none(safety):
    text = (
        f"<think-task>t</think-task><think-safety>{safety}</think-safety><think-policy>p</think-policy><final>f</final>"
    )
    assert parse(text).label is None


def test_precedence_and_fail_closed():
    assert precedent([Label.ALLOW, Label.REFUSE, Label.DENY]) is Label.REFUSE
    assert precedent([]) is Label.ESCALATION
    assert parse_label(" refuse ") is Label.REFUSE
    with pytest.raises(ValueError, match="ALLOW, ESCALATION, DENY, REFUSE"):
        parse_label("maybe")


def test_added_tokens_fit_the_spare_rows_of_phi35():
    assert len(set(ADDED_TOKENS)) == len(ADDED_TOKENS) <= 53
