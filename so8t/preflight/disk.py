"""Room on every volume that a run writes to: what it still needs against what is free."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from so8t.collect.config import DemoSource, FilesSource, HubQuery
from so8t.plan import four_class
from so8t.plan.disk import disk
from so8t.plan.hardware import existing
from so8t.preflight.finding import GIB, Finding, gib
from so8t.preflight.scene import Scene
from so8t.sizes import size_of
from so8t.step import Ref
from so8t.upload.config import DirectoryTarget

# Rows lie in the collected source, in its shard, in the joined result and in the benchmark's questions.
DATA_COPIES = 4
# Logs, the server's database, the benchmark's samples; a temporary folder, what libraries cache beside our own.
HOME_BYTES, TEMPORARY_BYTES = 256 << 20, 64 << 20
NAMED_MAX = 4


@dataclass(frozen=True)
class Demand:
    """So many bytes more at a place."""

    what: str
    place: Path
    size_bytes: int


def check(scene: Scene) -> list[Finding]:
    """One finding for each volume, the home's first."""
    if scene.shapes is None:
        return [Finding("disk", "not looked at", f"the base's shape is not known: {scene.unknown}")]
    volumes: dict[int | str, list[Demand]] = {}
    for one in demands(scene):
        volumes.setdefault(_volume(one.place), []).append(one)
    return [_judge(scene, part, first=number == 0) for number, part in enumerate(volumes.values())]


def demands(scene: Scene) -> list[Demand]:
    """What is still to be written, without what lies there already."""
    config, home = scene.config, scene.store.home
    assert scene.shapes is not None
    sizes = disk(
        scene.shapes,
        config.bake.quantizations,
        config.base_types(),
        config.machine.checkpoint_keep,
        config.search.trials,
    )
    del sizes["peak"]
    sizes |= four_class.disk(config.four_class, scene.shapes, config.machine.checkpoint_keep)
    target = config.upload.target
    published = (target.path if isinstance(target, DirectoryTarget) else None) or home
    found = [Demand("logs and database", home, HOME_BYTES if scene.left else 0)]
    for name, size in sizes.items():
        place = published if name == "upload" else home
        if name == "upload" and not isinstance(target, DirectoryTarget):
            continue  # the Hub gets the files from where they lie
        found.append(Demand(name, place, _rest(scene, name, size)))
    found += [Demand("data", home, _data_rest(scene))]
    if scene.left:
        found.append(Demand("temporary files", Path(tempfile.gettempdir()), TEMPORARY_BYTES))
        found.append(Demand("libraries' cache", _cache(), TEMPORARY_BYTES))
    return found


def _rest(scene: Scene, name: str, size: int) -> int:
    """Of a line of the plan: nothing where its step is done, less where it has begun."""
    step, _, more = name.partition(": ")
    ref = Ref(*step.removesuffix("]").split("[")) if "[" in step else Ref(step)
    if ref not in scene.left:
        return 0
    key = scene.left[ref]
    if not key:
        return size
    begun = (
        scene.store.home / "sessions" / f"{ref.step}-{key[:12]}" / "checkpoints"
        if more == "checkpoints"
        else scene.store.root / ref.step / f"{key}.partial"
    )
    return max(0, size - size_of(begun))


def _data_rest(scene: Scene) -> int:
    """Of sources whose size the config tells, times the copies that are still to be made; others by preflight.data_gib."""
    if not scene.leaves("preprocess"):
        return 0
    total = int(scene.config.preflight.data_gib * GIB)
    for source in scene.config.collect.sources:
        if isinstance(source, FilesSource):
            total += sum(path.stat().st_size for path in source.paths if path.is_file())
        elif isinstance(source, HubQuery):
            total += source.bytes_max
    copies = DATA_COPIES if scene.leaves("collect.source") else DATA_COPIES - 1
    return copies * total


def uncounted(scene: Scene) -> list[str]:
    """Sources whose size nothing tells."""
    if scene.config.preflight.data_gib or not scene.leaves("collect.source"):
        return []
    counted = (DemoSource, FilesSource, HubQuery)
    return [source.name for source in scene.config.collect.sources if not isinstance(source, counted)]


def _judge(scene: Scene, part: list[Demand], *, first: bool) -> Finding:
    place = existing(part[0].place)
    if place is None:
        return Finding(
            "disk", "fail", f"{part[0].place.anchor} is not there, for {part[0].place}", "that volume",
            "connect it, or choose another with --home DIR, SO8T_HOME or upload.target",
        )  # fmt: skip
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding("disk", "not looked at", f"{place}: {error.strerror}")
    need = sum(one.size_bytes for one in part)
    largest = sorted((one for one in part if one.size_bytes), key=lambda one: -one.size_bytes)
    named = ", ".join(f"{one.what} {gib(one.size_bytes)}" for one in largest[:NAMED_MAX])
    found = f"{gib(free)} free at {place}; still needed {gib(need)}" + (f" ({named})" if named else "")
    if first and (left_out := uncounted(scene)):
        found += f"; not counted: the rows of {', '.join(left_out)} (preflight.data_gib)"
    do = "free some room, or choose another volume with --home DIR or SO8T_HOME; `so8t plan` says what takes it"
    if free < need:
        return Finding("disk", "fail", found, f"{gib(need)} at {place}", do)
    spare = scene.config.preflight.disk_spare_gib * GIB
    if free < need + spare:
        return Finding("disk", "warn", found, f"{gib(need + spare)}, some to spare", do)
    return Finding("disk", "ok", found)


def _volume(place: Path) -> int | str:
    """Its device's number, or the name of a drive that is not there."""
    found = existing(place)
    return found.stat().st_dev if found is not None else place.anchor


def _cache() -> Path:
    """Where Hugging Face's libraries keep what they fetch by themselves."""
    named = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(named).expanduser()
