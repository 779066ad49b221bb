"""Two backends, one answer: live adapters in transformers against the folded F16 file in llama.cpp."""

import dataclasses
import math

import pytest

from so8t import durable
from so8t.bake.gguf_model import write_model
from so8t.benchmark.cell import prepare
from so8t.benchmark.prompts import Question, Tokenizer, continuations
from so8t.benchmark.scorer import open_scorer
from so8t.benchmark.scorer_llama import LlamaScorer
from so8t.benchmark.scorer_transformers import TransformersScorer
from so8t.config import Machine
from so8t.so8.merge import Adapter, Folded, Tensors
from tests.benchmark.conftest import cell_config

MACHINE = Machine(threads=1, device="cpu")
# F16 weights and an F16 cache against fp32; the logits of this random model span several units.
TOLERANCE_NATS = 0.03


@pytest.fixture(scope="module")
def scorers(inputs):
    opened = {
        system: open_scorer(system, inputs(system), MACHINE, 256) for system in ("A", "A-F16", "A-Q8_0", "B", "C-F16")
    }
    yield opened
    for scorer in opened.values():
        scorer.close()


@pytest.mark.parametrize("pair", [("B", "C-F16"), ("A", "A-F16")])
@pytest.mark.parametrize("task", ["safety", "digits", "tones"])
def test_backends_agree(scorers, inputs, task, pair):
    asked = prepare(cell_config("B", task), inputs("B")).asked
    live, baked = (scorers[system].choose(asked) for system in pair)
    gaps = [abs(a - b) for one, other in zip(live, baked, strict=True) for a, b in zip(one, other, strict=True)]
    assert max(gaps) < TOLERANCE_NATS
    spread = max(max(row) - min(row) for row in live)
    assert spread > 10 * TOLERANCE_NATS  # else agreement would mean nothing


@pytest.mark.parametrize("pair", [("A", "B"), ("A-F16", "C-F16"), ("A-Q8_0", "C-F16")])
def test_the_base_is_another_system(scorers, inputs, pair):
    asked = prepare(cell_config("A", "digits"), inputs("A")).asked
    one, other = (scorers[system].choose(asked) for system in pair)
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
    reply = scorers[system].generate(first, 5, (0,))
    found = reply.ids
    forced: list[int] = []
    tokens = durable.read_json(inputs("B")["base"].path / "config.json")["vocab_size"]
    for _ in range(5):
        step = dataclasses.replace(first, forced=tuple(forced), choices=tuple((token,) for token in range(tokens)))
        (logprobs,) = scorers[system].choose([step])
        forced.append(max(range(tokens), key=logprobs.__getitem__))
    assert found == forced
    assert not reply.ended
    stopped = scorers[system].generate(first, 5, (found[2],))
    assert (stopped.ids, stopped.ended) == (found[: found.index(found[2])], True)


def parity_of(world, folder, items: int) -> tuple[float, int]:
    """Largest |difference| of log-likelihoods, and identical greedy replies, of the base and its F32 file."""
    tokens, path = Tokenizer(world.train.path / "tokenizer"), folder / "f32.gguf"
    folded = Folded(Tensors.of_model(world.base.path), Adapter({}))
    write_model(
        path, world.base.path, folded, world.train.path / "tokenizer", "phi-3", "F32", {}, lambda done, total: None
    )
    options = [" egg", " a long river", " 二人", " stars and"]
    asked = [
        continuations(f"{n}", f"Question {n}: why? Answer:", options, "", "raw", tokens, 256) for n in range(items)
    ]
    questions = [question for question in asked if isinstance(question, Question)]
    live = TransformersScorer(world.base.path, world.train.path, adapted=False, machine=MACHINE)
    baked = LlamaScorer(path, folder, machine=MACHINE, context=256, kv="F32")
    one, other = (scorer.choose(questions) for scorer in (live, baked))
    gap = max(abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
    same = sum(live.generate(q, 8, ()).ids == baked.generate(q, 8, ()).ids for q in questions)
    baked.close()
    assert max(max(row) - min(row) for row in one) > 1  # else agreement would mean nothing
    return gap, same


def test_transformers_and_the_f32_file_agree_to_a_ten_thousandth(world, tmp_path):
    gap, same = parity_of(world, tmp_path, 8)
    assert gap <= 1e-4
    assert same == 8


@pytest.mark.soak
def test_a_hundred_items_agree_to_a_ten_thousandth(world, tmp_path, record_property):
    gap, same = parity_of(world, tmp_path, 100)
    record_property("largest difference, nats", gap)
    assert gap <= 1e-4
    assert same == 100
