"""The tiny model and its audit log; heavy imports only where it is used."""

import pytest

from so8t.serve.audit import AuditLog, Key


@pytest.fixture(scope="session")
def baked(tmp_path_factory):
    from tests.serve.tiny import bake

    return bake(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def model(baked):
    from so8t.serve.model import Model

    opened = Model(baked.model, baked.mmproj, 0, 1, 0.5, False)
    yield opened
    opened.close()


@pytest.fixture
def audit(tmp_path):
    folder = tmp_path / "serve"
    log = AuditLog(folder / "audit" / "1.jsonl", Key(folder / "audit.key"), 1 << 26, 2)
    yield log
    log.close()
