"""collect.tower: bring a pretrained image tower into the store, laid out like its repository on the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from so8t.collect.basemodel import hub
from so8t.progress import Progress
from so8t.section import Repository

if TYPE_CHECKING:
    from so8t.step import Facts, Inputs

NAMES = frozenset({
    "config.json", "preprocessor_config.json", "model.safetensors.index.json", "README.md", "LICENSE", "NOTICE",
})  # fmt: skip


def run(config: Repository, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Fetch weights, shape and picture settings; facts name licence and geometry. InputError if it is no SigLIP."""
    from so8t.so8.pretrained import read_tower

    facts = hub.fetch(config, out, progress, is_wanted)
    return {**facts, **read_tower(out)}


def is_wanted(name: str) -> bool:
    """Whether a file of the repository is needed; the text half's tokenizer is not."""
    return "/" not in name and (name in NAMES or name.endswith(".safetensors"))
