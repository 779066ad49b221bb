"""A tiny world to search in, what an undisturbed search makes of it, and processes to disturb."""

import pytest

from tests.search import small
from tests.train.conftest import world  # noqa: F401 - a fixture
from tests.train.forge import Forge


@pytest.fixture(scope="session")
def found(world, tmp_path_factory):  # noqa: F811
    home = tmp_path_factory.mktemp("found")
    return home, small.search(world, home)


@pytest.fixture(scope="session")
def searches():
    with Forge("tests.search.small") as forge:
        yield forge
