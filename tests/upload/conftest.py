import shutil

import pytest

from tests.upload.made import load_inputs, make_inputs


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    home = tmp_path_factory.mktemp("prepared")
    make_inputs(home)
    return home


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-login"))
    return tmp_path / "so8t-home"


@pytest.fixture
def inputs(home, prepared):
    shutil.copytree(prepared, home)
    return load_inputs(home)
