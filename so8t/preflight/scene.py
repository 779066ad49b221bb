"""What the checks share: the config, what is left to be made, and what that needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from so8t.artifacts import Store
from so8t.config import Config
from so8t.errors import InputError
from so8t.plan.hardware import Machine, detect
from so8t.plan.memory import Shapes
from so8t.plan.report import shapes_for
from so8t.step import Known, NotReady, Ref, plan, steps


@dataclass(frozen=True)
class Scene:
    """`left`: what is not in the store, with its key where that is known. `shapes`: None where nothing tells them."""

    config: Config
    store: Store
    machine: Machine
    left: Mapping[Ref, str] = field(default_factory=dict)
    shapes: Shapes | None = None
    unknown: str = ""  # why there are no shapes

    def leaves(self, step: str) -> bool:
        """Whether any part of a step is to be made."""
        return any(ref.step == step for ref in self.left)


def set_scene(config: Config, last: Ref, *, cuda: bool = True) -> Scene:
    """Look into the store and at the config; nothing is changed, no network is asked but for an unknown base's shape.

    Without `cuda` (a torch that was built for the CPU) a GPU that is there counts for nothing.
    """
    store, machine = Store(config.home()), detect(config.home())
    if not cuda:
        machine = replace(machine, gpu="", gpu_bytes=0)
    left = unmade(config, store, last)
    try:
        return Scene(config, store, machine, left, shapes_for(config, store, machine))
    except InputError as error:
        return Scene(config, store, machine, left, None, error.found)


def unmade(config: Config, store: Store, last: Ref) -> dict[Ref, str]:
    """All that the last step needs, directly or not, and the store does not hold; "" where the key waits for inputs.

    A counted step (preprocess.shard) belongs to the step that joins its parts.
    """
    found: dict[Ref, str] = {}
    seen, waiting, known = set[Ref](), [last], Known()
    while waiting:
        ref = waiting.pop()
        if ref in seen:
            continue
        seen.add(ref)
        waiting += steps()[ref.step].needs(config, ref.part).values()
        try:
            key = plan(ref, config, store, read_only=True, known=known).key
        except NotReady:
            found[ref] = ""
            continue
        except InputError:  # a file of the user's own: its step says more
            found[ref] = ""
            continue
        if store.peek(ref.step, key) is None:
            found[ref] = key
    return found
