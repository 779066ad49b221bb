"""The sets that come with the package."""

import io
import wave
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from so8t.collect.config import DemoSource
from so8t.collect.demo import digits, gather, prompts, tones
from so8t.collect.demo.text import pretraining_chats, pretraining_text
from so8t.labels import Label
from so8t.thinking import parse


def goertzel(samples: np.ndarray, hz: float, rate: int) -> float:
    """Power at one frequency (Goertzel 1958)."""
    coefficient = 2 * np.cos(2 * np.pi * hz / rate)
    before = now = 0.0
    for sample in samples:
        before, now = now, sample + coefficient * now - before
    return now**2 + before**2 - coefficient * now * before


def heard(wav: bytes) -> str:
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    loudest = int(np.convolve(samples**2, np.ones(800), "valid").argmax())
    part = samples[loudest : loudest + 800]  # 0.1 s
    low = [max(goertzel(part, hz * (1 + off), 8000) for off in (-0.01, 0, 0.01)) for hz in tones.LOW_HZ]
    high = [max(goertzel(part, hz * (1 + off), 8000) for off in (-0.01, 0, 0.01)) for hz in tones.HIGH_HZ]
    return tones.KEYS[4 * int(np.argmax(low)) + int(np.argmax(high))]


def test_tones_can_be_decoded_and_their_keys_are_even():
    rows = tones.gather("tones", 192, 0).records
    assert Counter(row.answer for row in rows) == dict.fromkeys(tones.KEYS, 12)
    right = sum(heard(row.media) == row.answer for row in rows)
    assert right >= 0.99 * len(rows)


def test_more_tones_leave_the_first_ones_alone_and_another_seed_does_not():
    few, many, other = (tones.gather("t", count, seed).records for count, seed in ((16, 0), (32, 0), (16, 1)))
    assert few == many[:16]
    assert few[0].media != other[0].media


def test_digits_are_scans_with_replies_that_give_the_bare_answer():
    rows = digits.gather("digits").records
    assert len(rows) == 1797
    assert {row.answer for row in rows} == set("0123456789")
    assert Image.open(io.BytesIO(rows[0].media)).size == (8, 8)
    assert {row.language for row in rows} == {"ja", "en"}
    for row in rows[:40]:
        reply = parse(row.response)
        assert reply is not None
        assert (reply.final, reply.label) == (row.answer, Label.ALLOW)


def test_prompts_cover_the_classes_in_both_languages():
    rows = prompts.gather("prompts").records
    clean = [row for row in rows if not row.nsfw and row.licence in ("mit", "apache-2.0")]
    counts = Counter((row.label, row.language) for row in clean)
    assert all(counts[int(label), language] >= 50 for label in Label for language in ("ja", "en"))
    assert sum(row.nsfw for row in rows) >= 12
    assert sum(row.licence not in ("mit", "apache-2.0", "apache-2.0; mit") for row in rows) >= 15
    assert sum(row.label < 0 for row in rows) >= 10
    assert len({row.id for row in rows}) == len(rows)


def test_every_reply_is_well_formed_and_forces_the_class_first():
    for row in prompts.gather("prompts").records:
        if row.label < 0:
            assert row.response == ""
            continue
        reply = parse(row.response)
        assert reply is not None, row.id
        assert reply.label == row.label
        assert reply.safety.startswith(Label(row.label).token)
    tasks = {
        (row.modality, row.language, parse(row.response).task)
        for set_ in ("prompts", "digits", "tones")
        for row in gather(DemoSource(kind="demo", name="x", set=set_, count=64)).records
        if row.response
    }
    assert len(tasks) == 6  # one constant for each modality and language


def test_pretraining_text_is_seeded_large_and_free_of_the_prompts():
    lines = pretraining_text(0)
    assert lines == pretraining_text(0) != pretraining_text(1)
    assert 60_000 <= sum(len(line.encode("utf-8")) for line in lines) <= 110_000
    assert len(pretraining_chats(0)) > 150
    whole = "\n".join(lines)
    assert not [row.prompt for row in prompts.gather("p").records if len(row.prompt) > 8 and row.prompt in whole]


@pytest.mark.parametrize("set_", ["digits", "tones", "prompts"])
def test_the_same_config_gives_the_same_rows(set_):
    config = DemoSource(kind="demo", name="x", set=set_, count=32)
    assert gather(config).records == gather(config).records
