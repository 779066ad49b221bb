"""Damaged inputs: found by their hashes, set aside, and made again by their own steps when the walk is repeated."""

from so8t.artifacts import Artifact, Store, check_hashes
from so8t.config import Config
from so8t.step import NotReady, Ref, plan


def damaged_of(ref: Ref, config: Config, store: Store) -> list[Artifact]:
    """The step's inputs whose bytes are not those of their manifest; every byte of every input is read."""
    try:
        inputs = plan(ref, config, store, read_only=True).inputs
    except NotReady:
        return []  # a size was wrong, and it is set aside already
    by_path = {artifact.path: artifact for artifact in inputs.values()}
    return [artifact for path, artifact in by_path.items() if check_hashes(path)]
