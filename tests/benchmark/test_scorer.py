"""Two backends, one answer: live adapters in transformers against the folded F16 file in llama.cpp."""

import dataclasses
import math

import pytest

from so8t.benchmark.cell import prepare
from so8t.benchmark.scorer import open_scorer
from so8t.config import Machine
from tests.benchmark.conftest import cell_config

MACHINE = Machine(threads=1, device="cpu")
# F16 weights and an F16 cache against fp32; the logits of this random model span several units.
TOLERANCE_NATS = 0.03


@pytest.fixture(scope="module")
def scorers(inputs):
    opened = {system: open_scorer(system, inputs(system), MACHINE, 256) for system in ("A", "B", "C-F16")}
    yield opened
    for scorer in opened.values():
        scorer.close()


@pytest.mark.parametrize("task", ["safety", "digits", "tones"])
def test_backends_agree(scorers, inputs, task):
    asked = prepare(cell_config("B", task), inputs("B")).asked
    live, baked = (scorers[system].choose(asked) for system in ("B", "C-F16"))
    gaps = [abs(a - b) for one, other in zip(live, baked, strict=True) for a, b in zip(one, other, strict=True)]
    assert max(gaps) < TOLERANCE_NATS
    spread = max(max(row) - min(row) for row in live)
    assert spread > 10 * TOLERANCE_NATS  # else agreement would mean nothing


def test_the_base_is_another_system(scorers, inputs):
    asked = prepare(cell_config("A", "digits"), inputs("A")).asked
    one, other = (scorers[system].choose(asked) for system in ("A", "B"))
    assert max(abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)) > 0.1


def test_batching_does_not_matter_beyond_rounding(scorers, inputs):
    asked = prepare(cell_config("B", "digits"), inputs("B")).asked[:5]
    asked += prepare(cell_config("B", "safety"), inputs("B")).asked[:5]
    together = scorers["B"].choose(asked)
    alone = [scorers["B"].choose([q])[0] for q in asked]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("system", ["B", "C-F16"])
def test_longer_choices_add_up_and_agree(scorers, inputs, system):
    first = prepare(cell_config("B", "digits"), inputs("B")).asked[0]
    a, b, c = 40, 300, 77
    long = dataclasses.replace(first, choices=((a, b, c), (a,), (b, c)))
    (found,) = scorers[system].choose([long])
    steps = []
    for forced, token in (((), a), ((a,), b), ((a, b), c)):
        step = dataclasses.replace(first, forced=(*first.forced, *forced), choices=((token,),))
        steps.append(scorers[system].choose([step])[0][0])
    assert found[0] == pytest.approx(math.fsum(steps), abs=5e-3)
    assert found[1] == pytest.approx(steps[0], abs=5e-3)


def test_longer_choices_agree_between_backends(scorers, inputs):
    first = prepare(cell_config("B", "tones"), inputs("B")).asked[0]
    long = dataclasses.replace(first, choices=((40, 300, 77), (41, 5), (9,)))
    live, baked = (scorers[system].choose([long])[0] for system in ("B", "C-F16"))
    assert live == pytest.approx(baked, abs=3 * TOLERANCE_NATS)


@pytest.mark.parametrize("system", ["B", "C-F16"])
def test_greedy_takes_the_likeliest_token_each_time(scorers, inputs, system):
    first = prepare(cell_config("B", "digits"), inputs("B")).asked[1].free()
    found = scorers[system].generate(first, 5, (0,))
    forced: list[int] = []
    for _ in range(5):
        step = dataclasses.replace(first, forced=tuple(forced), choices=tuple((token,) for token in range(2000)))
        (logprobs,) = scorers[system].choose([step])
        forced.append(max(range(2000), key=logprobs.__getitem__))
    assert found == forced
    assert scorers[system].generate(first, 5, (found[2],)) == found[: found.index(found[2])]
