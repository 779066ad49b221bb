import random

import pytest

from so8t.labels import Label
from so8t.serve.gate import Gate, Verdict, judge
from so8t.thinking import TAGS, parse, render
from tests.serve.adversary import THINKING, cut, leaks, replies, spoken, thought

GOOD = render("①", Label.DENY, "②", "③", " I cannot.\n")


def fed(reply) -> Gate:
    gate = Gate()
    for piece in reply:
        gate.feed(piece)
    return gate


def test_a_good_reply_leaves_as_it_stands_in_the_final():
    gate = fed(GOOD)
    assert gate.close() == Verdict("I cannot.", Label.DENY)
    assert not gate.broken
    assert gate.thinking() == GOOD.split("<final>")[0]


@pytest.mark.parametrize(
    "reply",
    [
        GOOD.replace("cannot", "can<think-task>①"),  # nested
        GOOD.replace("<final>", "<final><final>"),
        "①" + GOOD,
        GOOD + "①",
        GOOD.replace("</think-policy>", ""),
        GOOD.replace("<think-policy>", "①<think-policy>"),
    ],
)
def test_what_can_no_longer_become_well_formed_is_known_before_its_end(reply):
    seen = [number for number in range(len(reply)) if fed(reply[: number + 1]).broken]
    assert seen
    assert not fed(reply).close().well_formed


@pytest.mark.parametrize("reply", [GOOD.replace("<|deny|>", ""), GOOD.replace("<|deny|>", "<|deny|><|allow|>")])
def test_no_class_or_two_are_none(reply):
    assert judge(reply) == Verdict("I cannot.", None)


@pytest.mark.parametrize("token", ["<|allow|>", "<image>"])
def test_a_final_with_one_of_our_tokens_is_malformed(token):
    assert parse(GOOD.replace("cannot", token)) is not None
    assert not judge(GOOD.replace("cannot", token)).well_formed


def test_truncated_is_what_ends_before_its_last_closer():
    assert judge(GOOD.removesuffix("</final>")).truncated
    assert judge("no tag").truncated
    assert not judge(GOOD + GOOD).truncated
    assert not judge(GOOD.replace("<final>", "")).truncated


def test_the_generated_replies_are_of_every_kind():
    found = [judge(reply) for reply in replies(1, 1000)]
    good = sum(verdict.well_formed for verdict in found)
    assert 100 < good < 400
    assert sum(verdict.truncated for verdict in found) > 50
    assert sum(verdict.well_formed and verdict.label is None for verdict in found) > 10
    assert leaks("".join(replies(1, 10)).encode())


def test_wherever_a_reply_is_cut_the_gate_says_the_same():
    draw = random.Random(7)  # noqa: S311
    for reply in replies(2, 3000):
        gate = fed(cut(draw, reply))
        assert gate.close() == judge(reply)
        assert not leaks(gate.close().final.encode())
        assert not (gate.broken and judge(reply).well_formed)
        assert gate.broken == fed(reply).broken


def test_thinking_and_speaking_share_no_character():
    draw = random.Random(0)  # noqa: S311
    assert not any(sign in spoken(draw) for _ in range(1000) for sign in THINKING)
    assert any(sign in thought(draw) for _ in range(10) for sign in THINKING)
    assert not any(sign in tag for tag in TAGS for sign in THINKING)
