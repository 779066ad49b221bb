"""The whole look: every check in its order, and the smaller profile where the training would not fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from so8t.config import Config, load_config, profile_names
from so8t.plan import four_class
from so8t.preflight import clock, disk, earlier_splits, gpu, host, hub, local_base, memory
from so8t.preflight.finding import Finding
from so8t.preflight.profile import Choice, choose, fixed, noted
from so8t.preflight.scene import Scene, set_scene
from so8t.step import Ref

# By flow: the step that needs all others.
LASTS = {"pipeline": Ref("cleanup"), "four_class": Ref("four_class")}
TRAININGS = ("train", "train.search")


@dataclass(frozen=True)
class Report:
    """`overrides`: what a run of this config takes over, by place in the config (`machine.micro_batch_max`).

    `fits`: whether the training then fits; True also where none is left or nothing is known.
    """

    findings: list[Finding]
    overrides: dict[str, float]
    fits: bool = True


def look(config: Config, last: Ref) -> Report:
    """Look at everything that a run up to `last` would meet here; writes nothing but a probe in the home."""
    scene = set_scene(config, last, cuda=bool(gpu.torch_build()[1]))
    card, why = gpu.read_card()
    choice = _choice(scene)
    answer = hub.ask(scene)
    findings = [
        host.check_python(),
        host.check_packages(),
        host.check_llama(),
        host.check_encodings(),
        host.check_paths(scene),
        host.check_home(scene),
        *disk.check(scene),
        memory.check(scene, choice),
        gpu.check(scene, card, why),
        *_gpu_memory(scene, choice, card),
        host.check_sleep(),
        clock.check(scene, answer.time, clock.is_synchronised()),
        hub.check_reached(scene, answer),
        hub.check_token(scene, answer),
        *([pins] if (pins := hub.check_pins(scene)) else []),
        hub.check_licence(scene, answer),
        *local_base.check(scene),
        *earlier_splits.check(scene),
    ]
    return Report(findings, noted(choice.changes) if choice else {}, choice is None or choice.fits)


def other_profiles(path: Path, overrides: Sequence[str], home: Path | None, last: Ref) -> Finding:
    """Which of the file's profiles would fit this machine, where the one in force does not."""
    rest = [override for override in overrides if not override.startswith("profile=")]
    fitting = []
    for name in profile_names(path):
        scene = set_scene(load_config(path, [*rest, f"profile={name}"], home), last, cuda=bool(gpu.torch_build()[1]))
        if (choice := _choice(scene)) is not None and choice.fits:
            fitting.append(name)
    if not fitting:
        return Finding("profile", "warn", "no profile of this file fits this machine's memory", "one that does",
                       "shorter sequences, a smaller base or a larger machine; see `so8t plan`")  # fmt: skip
    return Finding("profile", "warn", "this one does not fit this machine's memory", "one that does",
                   " or ".join(f"--profile {name}" for name in fitting))  # fmt: skip


def _choice(scene: Scene) -> Choice | None:
    """Of the trainings that are left; None where there is none, or nothing tells its shapes."""
    trained, classified = _trained(scene), _classified(scene)
    if trained is None or classified is None:
        return trained or classified
    # Named is the one that does not fit, else the hungrier one.
    named, other = sorted((trained, classified), key=lambda choice: (choice.fits, -choice.after.total_bytes))
    return replace(
        trained,
        before=named.before.joined(other.before),
        after=named.after.joined(other.after),
        fits=named.fits and other.fits,
    )


def _classified(scene: Scene) -> Choice | None:
    """The four-class classifier's training, of which no setting is changed by itself."""
    if scene.shapes is None or not scene.leaves(four_class.NAME):
        return None
    needs = four_class.needs(scene.config.four_class, scene.shapes)
    return fixed(needs, scene.shapes.on_gpu, scene.machine.gpu_bytes, scene.machine.memory_bytes)


def _trained(scene: Scene) -> Choice | None:
    if scene.shapes is None or not any(scene.leaves(step) for step in TRAININGS):
        return None
    choice = choose(scene.shapes, scene.machine.gpu_bytes, scene.machine.memory_bytes)
    if choice.changes and not scene.config.preflight.shrink:
        return Choice({}, choice.before, choice.before, fits=False)
    return choice


def _gpu_memory(scene: Scene, choice: Choice | None, card: gpu.Card | None) -> list[Finding]:
    if choice is None or scene.shapes is None or not scene.shapes.on_gpu or card is None:
        return []
    return [memory.check_gpu(scene, choice, card.free_bytes)]
