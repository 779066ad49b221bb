"""Settings that a search has found, and the warm-up that it has done already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import Artifact
from so8t.errors import InputError
from so8t.loop.phase import Phase
from so8t.train.config import Train, with_values
from so8t.train.data import Sample

BEST, PROMPTS, WARM = "best.json", "prompts.json", "warm"


def before_ppo(phases: Sequence[Phase]) -> list[Phase]:
    """The phases that a search does once for all its trials."""
    names = [phase.name for phase in phases]
    return list(phases[: names.index("ppo")])


def take_over(config: Train, found: Artifact | None) -> tuple[Train, dict[str, Any]]:
    """The config with the best values of the search, and what is to be said of it; both as they were without one."""
    if found is None:
        return config, {}
    best: dict[str, Any] = durable.read_json(found.path / BEST)
    return with_values(config, best["values"]), best


def start_of(found: Artifact | None) -> Path | None:
    """The checkpoint that the search's warm-up ended with."""
    if found is None:
        return None
    folders = sorted((found.path / WARM).iterdir())
    if len(folders) != 1:
        raise InputError(f"{found.path / WARM} holds {len(folders)} checkpoints", "the one of the warm-up's end")
    return folders[0]


def unseen(held_out: Sequence[Sample], found: Artifact | None) -> list[Sample]:
    """The held-out rows without those that chose the settings."""
    seen = set(durable.read_json(found.path / PROMPTS)) if found is not None else set()
    return [sample for sample in held_out if sample.record.id not in seen]
