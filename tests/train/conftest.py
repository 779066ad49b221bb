"""A tiny world to train in, what an undisturbed training makes of it, and processes to disturb."""

from pathlib import Path

import pytest
import torch

from tests.train import tiny
from tests.train.forge import Forge


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    torch.set_num_threads(1)
    tiny.make_world(root)
    return root


@pytest.fixture(scope="session")
def whole(world, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    tiny.train(world, home)
    return home


@pytest.fixture(scope="session")
def forge():
    with Forge() as forge:
        yield forge
