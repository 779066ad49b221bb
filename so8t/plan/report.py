"""The plan as one dictionary, and what does not fit."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from so8t.plan import four_class
from so8t.plan.disk import checkpoint_bytes, disk
from so8t.plan.duration import bake_durations, durations
from so8t.plan.geometry import tower_of
from so8t.plan.hardware import Machine, detect, speed_of
from so8t.plan.memory import DEMO_ROW_TOKENS, DEMO_TEXT_TOKENS, GIB, TEXT_TOKENS, Need, Shapes, phases
from so8t.plan.pin import datasets, repositories
from so8t.plan.shape_source import geometry_of
from so8t.section import UNPINNED

if TYPE_CHECKING:
    from so8t.artifacts import Store
    from so8t.config import Config


def make_plan(
    config: "Config", store: "Store", prompt_tokens: int, card: str = "", flow: str = "pipeline"
) -> dict[str, Any]:
    """Everything that `so8t plan` tells; sizes in bytes, times in seconds. With 0 `prompt_tokens` a default is assumed.

    `flow` four_class: of the classifier alone, whose time nothing tells before its rows are counted.
    """
    machine = detect(config.home())
    speed = speed_of(machine, card)
    if card:
        machine = replace(machine, gpu=speed.name, gpu_bytes=speed.memory_gib * GIB)
    shapes = shapes_for(config, store, machine, prompt_tokens)
    geometry, tower, on_gpu = shapes.geometry, shapes.tower, shapes.on_gpu
    needs = phases(shapes, machine.gpu_bytes if on_gpu else machine.memory_bytes)
    seconds = {**durations(shapes, speed, config.search), **bake_durations(shapes, speed, config)}
    sizes = disk(
        shapes, config.bake.quantizations, config.base_types(), config.machine.checkpoint_keep, config.search.trials
    )
    parameters = {**shapes.counts.as_dict(), "checkpoint_bytes": checkpoint_bytes(shapes)}
    if flow == four_class.NAME:
        needs, sizes, seconds = {}, {"collect.base": sizes["collect.base"]}, {}
        parameters = four_class.parameters(config.four_class, shapes)
    if flow == four_class.NAME or config.train.reward.classifier:
        needs |= four_class.needs(config.four_class, shapes)
        sizes |= four_class.disk(config.four_class, shapes, config.machine.checkpoint_keep)
        sizes["peak"] = sum(size for name, size in sizes.items() if name != "peak")
    return {
        "geometry": {**asdict(geometry), "image_tokens": tower.tokens},
        "parameters": parameters,
        "memory": {
            name: {
                "device": need.device,
                "host": need.host,
                "device_bytes": need.device_bytes,
                "host_bytes": need.host_bytes,
            }
            for name, need in needs.items()
        },
        "disk": sizes,
        "seconds": {name: list(span) for name, span in seconds.items()},
        "assumed": {
            "prompt_tokens": shapes.prompt_tokens,
            "on": "GPU" if on_gpu else "CPU",
            "card": speed.name,
            "flops": speed.flops,
            "bytes_per_s": speed.bytes_per_s,
        },
        "machine": asdict(machine),
        "warnings": [*_pins(config), *misfits(needs, sizes["peak"], machine, on_gpu)],
    }


def shapes_for(config: "Config", store: "Store", machine: Machine, prompt_tokens: int = 0) -> Shapes:
    """Shapes of the base in this config on this machine; InputError where nothing tells the base's."""
    geometry = geometry_of(config, store)
    tower = tower_of(config.train.vision, geometry)
    on_gpu = config.machine.device == "cuda" or (config.machine.device == "auto" and bool(machine.gpu))
    prompt_tokens = prompt_tokens or assumed_tokens(config) + tower.tokens
    own = all(source.kind == "demo" for source in config.collect.sources)
    return Shapes.of(config.train, geometry, tower, on_gpu, prompt_tokens, DEMO_ROW_TOKENS if own else 0)


def assumed_tokens(config: "Config") -> int:
    """A prompt's text, where nothing is said."""
    return DEMO_TEXT_TOKENS if config.base.kind == "demo" else TEXT_TOKENS


def misfits(needs: dict[str, Need], disk_bytes: int, machine: Machine, on_gpu: bool) -> list[str]:
    """What the machine has too little of."""
    told = []
    for name, need in needs.items():
        device, host = need.device_bytes, need.host_bytes
        if not on_gpu:
            device, host = 0, device + host
        if machine.gpu_bytes and device > machine.gpu_bytes:
            told.append(
                f"{name} needs {device / GIB:.1f} GiB of GPU memory, {machine.gpu} has {machine.gpu_bytes / GIB:.1f}: "
                "choose a smaller --profile, micro_batch or length"
            )
        if host > machine.memory_bytes:
            told.append(f"{name} needs {host / GIB:.1f} GiB of memory, found {machine.memory_bytes / GIB:.1f}")
    if on_gpu and not machine.gpu_bytes:
        told.append("no GPU was found here: whether this fits one was not checked")
    if disk_bytes > machine.disk_free_bytes:
        told.append(
            f"the artifacts need {disk_bytes / GIB:.0f} GiB beside the data, {machine.disk_free_bytes / GIB:.0f} are free"
        )
    return told


def _pins(config: "Config") -> list[str]:
    named = [(one.id, one.revision) for one in repositories(config).values()]
    named += [(one.id, one.revision) for one in datasets(config).values()]
    return [
        f"{name} is not pinned to a revision and will not be fetched: `so8t plan --pin` prints the setting"
        for name, revision in named
        if revision == UNPINNED
    ]
