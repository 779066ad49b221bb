"""preprocess.classes: a trained four-class classifier reads the text rows that nobody has labelled.

A step of its own because it needs the base and the accelerator, which preprocess does not. Writes classes.jsonl.
"""

import json
from pathlib import Path

from so8t import durable, records
from so8t.classifier import Classifier
from so8t.loop.environment import prepare
from so8t.preprocess import pii
from so8t.preprocess.config import Classifier as Config
from so8t.preprocess.labelling import CLASSES
from so8t.progress import Progress
from so8t.step import Facts, Inputs

CHUNK = 256


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Prompts are read as preprocess masks them."""
    device = prepare(progress.machine)
    config.checked()
    collected = inputs["collected"].path / "records.parquet"
    rows = [row for row in records.iterate(collected) if row.label < 0 and row.modality == "text" and not row.nsfw]
    # Only their order decides which rows share a batch.
    rows.sort(key=lambda row: row.id)
    classifier = Classifier.load(config.folder, inputs["base"].path, str(device), config.batch)
    lines: list[str] = []
    for start in range(0, len(rows), CHUNK):
        progress.update(start, len(rows), "classifying")
        part = rows[start : start + CHUNK]
        judged = classifier.judge([pii.mask(row.prompt)[0] for row in part])
        lines += [
            json.dumps({
                "id": row.id, "class": label.name, "confidence": likely, "source": f"model:{classifier.content}",
            })
            for row, (label, likely) in zip(part, judged, strict=True)
        ]  # fmt: skip
    durable.write_text(out / CLASSES, "".join(f"{line}\n" for line in lines))
    return {"rows": len(rows), "classifier": classifier.content}
