"""collect.base: bring the base model into the store, laid out like a repository on the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from so8t.collect.basemodel import demo, files, hub
from so8t.collect.config import DemoBase, HubBase, LocalBase
from so8t.models import check_base, stop_ids
from so8t.progress import Progress

if TYPE_CHECKING:
    from so8t.step import Facts, Inputs


def run(config: DemoBase | LocalBase | HubBase, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Make, copy or fetch the base; facts name its licence, size and shape. InputError if it is no stock Phi-3."""
    if isinstance(config, DemoBase):
        facts = demo.make(config, out, progress)
    elif isinstance(config, LocalBase):
        facts = files.copy(config, out, progress)
    else:
        facts = hub.fetch(config, out, progress)
    shape = check_base(out)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    return {**facts, **{name: shape[name] for name in names}, "stop_ids": stop_ids(out)}
