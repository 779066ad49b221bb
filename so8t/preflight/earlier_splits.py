"""Rows that were placed once: whether this run leaves them where they are."""

from so8t.artifacts import Artifact
from so8t.preflight.finding import Finding
from so8t.preflight.scene import Scene
from so8t.step import Ref

MADE = Ref("preprocess")


def check(scene: Scene) -> list[Finding]:
    """One finding where rows are to be placed and an earlier preprocess lies in the home, none otherwise."""
    if MADE not in scene.left:
        return []
    named = scene.config.preprocess.splits_of
    if named is not None:
        return [Finding("splits", "ok", f"rows of {named.folder} stay in train, validation or test")]
    earlier = [made for made in scene.store.all() if made.manifest.step == MADE.step]
    if not earlier:
        return []
    newest: Artifact = max(earlier, key=lambda made: made.manifest.finished_at)
    return [Finding("splits", "warn", f"{newest.path} has placed rows; this run places all anew, and a new row that is near "
                    "rows of two splits brings some of them to the other", "rows that stay, if results are to be compared",
                    f"to keep them set preprocess.splits_of.folder={newest.path}")]  # fmt: skip
