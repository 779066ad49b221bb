import pytest

from tests.upload.made import make_inputs


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-login"))
    return tmp_path / "so8t-home"


@pytest.fixture
def inputs(home):
    return make_inputs(home)
