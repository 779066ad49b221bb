"""Memory that runs out: half the micro-batch, the same effective batch, and a resume that knows of it."""

import json

import pytest
import torch

from so8t.errors import ResourceError
from so8t.loop.microbatch import MicroBatch, is_out_of_memory
from so8t.plan.memory import warmup_need
from so8t.session import read
from so8t.train import generation, policy, rollout, warmup
from so8t.train.microbatch import first_size
from tests.train import tiny

# More than any machine has, so the allocator itself refuses.
TOO_MUCH_BYTES = 1 << 60


@pytest.fixture
def small_memory(monkeypatch):
    """Passes of more than so many samples meet an allocation that the system refuses, after drawing random numbers."""

    def limit(samples: int, generating: bool = False) -> None:
        def short(compute, position):
            def limited(*arguments, **options):
                if len(arguments[position]) > samples:
                    torch.rand(3)
                    torch.empty(TOO_MUCH_BYTES, dtype=torch.uint8)
                return compute(*arguments, **options)

            return limited

        if generating:
            monkeypatch.setattr(generation, "embed", short(generation.embed, 1))
            return
        monkeypatch.setattr(warmup, "weighted_loss", short(warmup.weighted_loss, 1))
        for module in (policy, rollout):
            monkeypatch.setattr(module, "response_logprobs", short(rollout.response_logprobs, 1))

    return limit


def config_of(micro_batch: int):
    phases = ("align", "warmup", "ppo")
    parts = {name: getattr(tiny.CONFIG, name).model_copy(update={"micro_batch": micro_batch}) for name in phases}
    return tiny.CONFIG.model_copy(update=parts)


def history(home):
    lines = (tiny.output(home) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def trained(home):
    return {name: digest for name, digest in tiny.bytes_of(home).items() if name.endswith(".safetensors")}


class Cut:
    """Interrupts the training at a message."""

    def __init__(self, message: str) -> None:
        self.message = message

    def report(self, step, done, total, message, metrics) -> None:
        if message.startswith(self.message):
            raise KeyboardInterrupt


def test_half_the_micro_batch_is_the_same_training_and_survives_a_cut(world, tmp_path, small_memory):
    tiny.train(world, tmp_path / "one", config=config_of(1))
    tiny.train(world, tmp_path / "most", config=config_of(2), micro_batch_max=1)
    assert trained(tmp_path / "most") == trained(tmp_path / "one"), "the machine's limit is that micro-batch"
    small_memory(1)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(world, tmp_path / "cut", config=config_of(2), sinks=(Cut("warmup 3/"),))
    session = read(next((tmp_path / "cut" / "sessions").iterdir()))
    assert session.overrides == {"align.micro_batch": 1.0, "warmup.micro_batch": 1.0}
    tiny.train(world, tmp_path / "cut", config=config_of(2))
    # Accumulation begins anew from the same random numbers: the very bytes of a training that never took more.
    assert trained(tmp_path / "cut") == trained(tmp_path / "one")
    changed = [(row["phase"], row["position"]) for row in history(tmp_path / "cut") if "micro_batch" in row]
    assert changed == [("align", 0), ("warmup", 0), ("ppo", 0)]
    assert not any("micro_batch" in row for row in history(tmp_path / "one"))


def test_replies_are_generated_in_halves_where_memory_runs_out_and_a_cut_remembers(world, tmp_path, small_memory):
    small_memory(2, generating=True)
    config = tiny.variant(epochs=1, evaluation_every=1)
    tiny.train(world, tmp_path / "one", config=config)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(world, tmp_path / "cut", config=config, sinks=(Cut("ppo 2/"),))
    assert read(next((tmp_path / "cut" / "sessions").iterdir())).overrides == {"ppo.generation_batch": 2.0}
    tiny.train(world, tmp_path / "cut", config=config)
    assert tiny.bytes_of(tmp_path / "cut") == tiny.bytes_of(tmp_path / "one")
    changed = [row for row in history(tmp_path / "one") if "generation_batch" in row]
    assert [(row["phase"], row["position"], row["generation_batch"]) for row in changed] == [("ppo", 0, 2.0)]
    assert not any("micro_batch" in row for row in history(tmp_path / "one"))


def test_gradients_of_any_split_are_equal_up_to_rounding(world, tmp_path):
    from so8t.loop.phase import Optimizer
    from so8t.models import write_thinking_tokenizer
    from so8t.train.learner import build
    from so8t.train.run import load_samples

    ids = write_thinking_tokenizer(world / "base", tmp_path)
    learner = build(tiny.CONFIG, world / "base", tmp_path, ids, "cpu")
    rows = load_samples(tiny.CONFIG, learner, tiny.artifact(world / "data", "preprocess"), "train")
    phase = warmup.Warmup(learner, tiny.CONFIG, rows, rows)
    phase.begin()
    assert isinstance(phase.optimizer, Optimizer)
    parts, found = [phase._text_part(0), phase._image_part(0)], []
    for size in (1, 2, 4):
        losses = phase._gradients(parts, size)
        found.append((losses, {name: p.grad.clone() for name, p in phase.optimizer.named.items()}))
    for losses, gradients in found[1:]:
        assert losses == pytest.approx(found[0][0], rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-3, atol=1e-6)


def test_one_sample_that_does_not_fit_is_said_clearly():
    micro, tried = MicroBatch(5), []

    def never(size):
        tried.append((size, float(torch.rand(1))))
        torch.empty(TOO_MUCH_BYTES, dtype=torch.uint8)

    with pytest.raises(ResourceError, match="one sample a pass"):
        micro.attempt(never)
    assert [size for size, _ in tried] == [5, 3, 2, 1]
    assert len({drawn for _, drawn in tried}) == 1
    assert micro.size == 5


def test_other_errors_pass_and_what_memory_says_is_known():
    micro = MicroBatch(4)
    with pytest.raises(RuntimeError, match="size"):
        micro.attempt(lambda size: torch.ones(size) @ torch.ones(size + 1))
    assert micro.commit() == {}
    for error in (
        torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ):  # fmt: skip
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("device-side assert triggered"))


def test_zero_takes_the_largest_that_fits(world, monkeypatch):
    import psutil
    from transformers import AutoConfig

    base, cpu = AutoConfig.from_pretrained(world / "base"), torch.device("cpu")

    def size(room_bytes: int) -> int:
        memory = psutil.virtual_memory()._replace(total=room_bytes)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        return first_size(0, 16, warmup_need, tiny.CONFIG, base, cpu)

    assert size(1 << 40) == 16
    assert size(1 << 20) == 1
    assert 1 < size(3 << 30) <= 16
    assert first_size(7, 16, warmup_need, tiny.CONFIG, base, cpu) == 7
