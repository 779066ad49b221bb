"""A whole four-class training in seconds, and the same as a program of its own: `python -m tests.four_class.tiny WORLD HOME`."""

import sys
from pathlib import Path
from typing import Any

from so8t.config import Machine
from so8t.errors import So8tError
from so8t.four_class.config import FourClass
from so8t.progress import JsonLines, Progress
from tests.train import tiny

SETTINGS: dict[str, Any] = {
    "adapter": {"targets": ["self_attn.o_proj"], "output": True, "rank": 2, "base_dtype": "float32"},
    "max_seq_length": 40,
    "epochs": 3,
    "micro_batch": 2,
    "gradient_accumulation_steps": 2,
    "evaluation_batch": 4,
    "learning_rate": 1e-2,
    "head_learning_rate": 1e-1,
    "decision": {"unsafe_allow_max": 0.5},
}
CONFIG = FourClass.model_validate(SETTINGS)
SESSION = f"four_class-{tiny.KEY[:12]}"


def train(world: Path, home: Path, config: FourClass = CONFIG) -> dict[str, Any]:
    """Run the step; the result lies in `tiny.output(home)`."""
    from so8t.four_class.run import run

    machine = Machine(threads=1, device="cpu", checkpoint_interval_s=0.01, checkpoint_stall_share=1)
    progress = Progress("four_class", machine, home, (JsonLines(home / "progress.jsonl", 0.0),))
    tiny.output(home).mkdir(parents=True, exist_ok=True)
    inputs = {
        "base": tiny.artifact(world / "base", "collect.base"),
        "data": tiny.artifact(world / "data", "preprocess"),
    }
    return run(config, inputs, tiny.output(home), progress)


if __name__ == "__main__":
    try:
        train(Path(sys.argv[1]), Path(sys.argv[2]))
    except So8tError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
