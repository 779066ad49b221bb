"""train: tower, projector, warm-up, PPO, final alpha and four-class head, as one session that can be killed at any time."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from so8t import records
from so8t.artifacts import Artifact
from so8t.errors import InputError
from so8t.loop import ranks
from so8t.loop.checkpoint import Checkpoints
from so8t.loop.environment import fingerprint, prepare
from so8t.loop.follower import follow
from so8t.loop.phase import Phase
from so8t.loop.trainer import Trainer
from so8t.loop.watched import Watched
from so8t.models import prompt_ids, write_thinking_tokenizer
from so8t.progress import Progress, log_of
from so8t.session import SessionFile
from so8t.so8.monitor import rotation_errors
from so8t.so8.pretrained import read_tower
from so8t.step import Facts, Inputs
from so8t.train.align import Align
from so8t.train.alpha import Alpha
from so8t.train.alpha_page import write_page
from so8t.train.config import Train
from so8t.train.data import Sample, encode
from so8t.train.export import export
from so8t.train.head import FourClassHead
from so8t.train.learner import Learner, build
from so8t.train.opinion import ask
from so8t.train.policy import Policy
from so8t.train.reward import Classify
from so8t.train.samples import Samples
from so8t.train.tower import Tower
from so8t.train.warm import start_of, take_over, unseen
from so8t.train.warmup import Warmup

PARTIAL = ".partial"


def run(config: Train, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Train, or go on training; `out` gets the adapter, tokenizer, tower, head, metrics and history.

    Of several processes (so8t/loop/ranks.py) the first does so; the others compute their shares and give no facts.
    """
    device = prepare(progress.machine)
    config = config.within(progress.machine.micro_batch_max, progress.machine.save_memory)
    with ranks.joined(device):
        if not ranks.is_first():
            return _help(config, inputs, out, device)
        return _train(config, inputs, out, progress, device)


def _help(config: Train, inputs: Inputs, out: Path, device: torch.device) -> Facts:
    config, _ = take_over(config, inputs.get("search"))
    learner, phases, _, _ = _assemble(config, inputs, out, device)
    follow(learner, phases, config.seed)
    return {}


def _assemble(
    config: Train, inputs: Inputs, out: Path, device: torch.device
) -> tuple[Learner, list[Phase], list[Sample], list[Sample]]:
    """The learner, its phases, and the rows of both splits."""
    classify = ask(inputs, str(device))
    token_ids = write_thinking_tokenizer(inputs["base"].path, out / "tokenizer")
    learner = build(config, inputs["base"].path, out / "tokenizer", token_ids, str(device), pretrained_tower(inputs))
    train, held_out = (load_samples(config, learner, inputs["data"], split) for split in ("train", "validation"))
    held_out = unseen(held_out, inputs.get("search"))
    prompts = [load_prompts(learner, inputs["data"], split) for split in ("train", "validation")]
    return learner, make_phases(config, learner, train, held_out, classify, prompts), train, held_out


def _train(config: Train, inputs: Inputs, out: Path, progress: Progress, device: torch.device) -> Facts:
    started = time.monotonic()
    found = inputs.get("search")
    config, searched = take_over(config, found)
    session = progress.session or SessionFile.open(
        progress.home, f"train-{out.name.removesuffix(PARTIAL)[:12]}", "train"
    )
    checkpoints = Checkpoints(session.folder / "checkpoints", progress.machine.checkpoint_keep)
    progress.update(0, None, "loading the base and the data")
    learner, phases, train, held_out = _assemble(config, inputs, out, device)
    trainer = Trainer(
        learner, phases, checkpoints, session, progress, config.seed, fingerprint(config, device), start_of(found),
        _samples_of(learner, held_out, phases, session, progress).after,
    )  # fmt: skip
    trainer.run()
    if searched:
        trainer.metrics["search"] = searched
    export(learner, trainer, out, inputs["base"].content)
    write_page(trainer.metrics["alpha"], out)
    if progress.session is None:
        session.end("completed")
    return {
        "metrics": trainer.metrics,
        "rotations": rotation_errors((learner.text, learner.sight)),
        "trained_parameters": {"text": _count(learner.text), "vision": _count(learner.sight)},
        "train_rows": len(train),
        "validation_rows": len(held_out),
        **trainer.facts(),
        "seconds_this_attempt": time.monotonic() - started,
        "cpu_seconds_this_attempt": time.process_time(),
    }


def make_phases(
    config: Train,
    learner: Learner,
    train: list[Sample],
    held_out: list[Sample],
    classify: Classify | None = None,
    prompts: Sequence[list[Sample]] = ([], []),
) -> list[Phase]:
    """The phases in their order; `prompts` of both splits have a class and no reply, which is enough for the head."""
    shown, shown_held_out = ([s for s in part if s.record.image] for part in (train, held_out))
    adapters, every = (learner.text, learner.sight), config.adapter.monitor_steps
    return [
        Tower(learner, config.vision, config.seed, shown, shown_held_out),
        Align(learner, config, shown, shown_held_out),
        Watched(Warmup(learner, config, train, held_out), adapters, every),
        Watched(Policy(learner, config, train, held_out, classify), adapters, every),
        Alpha(learner, config, held_out),
        FourClassHead(learner, config.head, train + prompts[0], held_out + prompts[1]),
    ]


def _samples_of(
    learner: Learner, held_out: list[Sample], phases: list[Phase], session: SessionFile, progress: Progress
) -> Samples:
    ended: dict[str, Callable[[int], int | None]] = {Warmup.name: lambda position: position}
    within = [phase.phase if isinstance(phase, Watched) else phase for phase in phases]
    ended |= {phase.name: phase.schedule.ended for phase in within if isinstance(phase, Policy)}
    path = log_of(progress.home, session.session.session_id, "samples")
    return Samples(learner, held_out, path, progress.machine.samples_every, progress.machine.sample_tokens, ended)


def pretrained_tower(inputs: Inputs) -> Path | None:
    """The pretrained tower, where there is one; InputError unless the pictures were made as it wants them."""
    if "tower" not in inputs:
        return None
    wanted = {name: read_tower(inputs["tower"].path)[name] for name in ("image_size", "resampling")}
    made = {name: inputs["data"].manifest.config.get(name) for name in wanted}
    if made != wanted:
        raise InputError(
            f"preprocess made pictures with {made}",
            f"{wanted}, as the pretrained tower was trained",
            "write these values into preprocess",
        )
    return inputs["tower"].path


def load_samples(config: Train, learner: Learner, data: Artifact, split: str) -> list[Sample]:
    """The rows of a split in the order of their ids, tokenised."""
    rows = sorted(records.iterate(data.path / f"{split}.parquet"), key=lambda record: record.id)
    return [encode(row, learner.tokenizer, learner.vision.tokens, config.warmup.key_weight) for row in rows]


def load_prompts(learner: Learner, data: Artifact, split: str) -> list[Sample]:
    """The split's texts that have a class and no reply that may be learnt."""
    rows = (row for row in records.without_reply(data.path, split) if row.modality == "text")
    return [Sample(row, prompt_ids(learner.tokenizer, row.prompt), [], []) for row in rows]


def _count(adapters: Any) -> int:
    return sum(parameter.numel() for parameter in adapters.parameters().values())
