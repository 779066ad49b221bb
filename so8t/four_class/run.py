"""four_class: trains the four-class classifier, as one session that can be killed at any time.

Writes what `so8t.classifier.Classifier.load` reads (adapter/, head/, classifier.json, calibration.json), and
metrics.json, history.jsonl, calibration_report.json (reliability before and after, out of fold).
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.classifier import CALIBRATION, CLASSIFIER, FORMAT, HEAD, POOLINGS
from so8t.four_class.config import FourClass
from so8t.four_class.learner import Learner, Sample, build
from so8t.four_class.phases import make_phases
from so8t.four_class.rows import load
from so8t.labels import LABEL_NAMES
from so8t.loop.checkpoint import Checkpoints
from so8t.loop.environment import fingerprint, prepare
from so8t.loop.trainer import Trainer
from so8t.progress import Progress
from so8t.session import SessionFile
from so8t.so8.monitor import rotation_errors
from so8t.so8.saved import Saved, write_tensors
from so8t.step import Facts, Inputs

PARTIAL = ".partial"


def run(config: FourClass, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Train, or go on training; see the module."""
    started = time.monotonic()
    device = prepare(progress.machine)
    rows = load(config.data, inputs)
    for warning in rows.warnings:
        progress.update(0, None, warning)
    session = progress.session or SessionFile.open(
        progress.home, f"four_class-{out.name.removesuffix(PARTIAL)[:12]}", "four_class"
    )
    progress.update(0, None, "loading the base")
    learner = build(config, inputs["base"].path, device)
    train, held_out = learner.encode(rows.train), learner.encode(rows.validation)
    trainer = Trainer(
        learner, make_phases(learner, train, held_out),
        Checkpoints(session.folder / "checkpoints", progress.machine.checkpoint_keep), session, progress,
        config.seed, fingerprint(config, device),
    )  # fmt: skip
    trainer.run()
    _export(learner, trainer, out, inputs["base"].content)
    if progress.session is None:
        session.end("completed")
    measured = trainer.metrics["calibration"]
    return {
        "macro_f1_validation": measured["best_macro_f1"],
        "best_step": measured["best_step"],
        "decisions_out_of_fold": measured["report"]["decisions"],
        "calibration": measured["calibration"],
        "evaluations": {name: found["macro_f1"] for name, found in trainer.metrics.items() if "macro_f1" in found},
        "rotations": rotation_errors([learner.adapters]),
        "trained_parameters": sum(parameter.numel() for parameter in learner.trained.values()),
        "rows": {"train": _counts(train), "validation": _counts(held_out)},
        "cut": {"train": _cut(train), "validation": _cut(held_out)},
        "warnings": rows.warnings,
        **trainer.facts(),
        "seconds_this_attempt": time.monotonic() - started,
        "cpu_seconds_this_attempt": time.process_time(),
    }


def _export(learner: Learner, trainer: Trainer, out: Path, base_content: str) -> None:
    Saved.of(learner.adapters, {}, base_content).write(out / "adapter")
    head = learner.reader.head
    write_tensors(out / HEAD, {name: p.detach().cpu().clone() for name, p in head.named_parameters()})
    description: dict[str, Any] = {
        "format": FORMAT,
        "classes": list(LABEL_NAMES),
        "pooling": POOLINGS[learner.config.pooling],
        "max_seq_length": learner.config.max_seq_length,
        "base_dtype": learner.config.adapter.base_dtype,
        "base_content": base_content,
    }
    durable.write_json(out / CLASSIFIER, description)
    measured = trainer.metrics["calibration"]
    durable.write_json(out / CALIBRATION, measured["calibration"])
    durable.write_json(out / "calibration_report.json", measured["report"])
    durable.write_json(out / "metrics.json", trainer.metrics)
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in trainer.history)
    durable.write_text(out / "history.jsonl", lines)


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    counts = Counter(sample.row.label for sample in samples)
    return {label.name: n for label, n in sorted(counts.items())}


def _cut(samples: Sequence[Sample]) -> int:
    return sum(sample.cut for sample in samples)
