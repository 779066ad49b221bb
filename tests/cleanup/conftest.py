import pytest

from so8t.artifacts import Store
from tests.cleanup.made import chain


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def three(home):
    """Three runs, the oldest first."""
    store = Store(home)
    return [chain(store, name, days) for name, days in (("old", 100), ("middle", 50), ("new", 1))]
