"""With how many samples a pass a training begins; so8t/loop/microbatch.py is what happens when that is too many."""

from collections.abc import Callable
from typing import Any

import torch

from so8t.loop import ranks
from so8t.plan.geometry import of_json, tower_of
from so8t.plan.hardware import memory_limit
from so8t.plan.memory import TEXT_TOKENS, Need, Shapes, fitting
from so8t.train.config import Train


def first_size(
    setting: int, most: int, need: Callable[[Shapes, int], Need], config: Train, base: Any, device: torch.device
) -> int:
    """The configured size, or for 0 the largest that `need` says fits the whole memory of this machine; at most so
    large that each of several processes has a share of `most`.

    Not what happens to be free: the same machine must give the same number. `base` is a transformers config.
    """
    if ranks.count() > 1:
        most = -(-most // ranks.count())
    if setting:
        return setting if ranks.count() == 1 else min(setting, most)
    geometry = of_json(base.to_dict(), "the base")
    tower, on_gpu = tower_of(config.vision, geometry), device.type == "cuda"
    shapes = Shapes.of(config, geometry, tower, on_gpu, TEXT_TOKENS + tower.tokens)
    room = torch.cuda.get_device_properties(device).total_memory if on_gpu else memory_limit()
    return ranks.agreed(fitting(shapes, need, most, room))
