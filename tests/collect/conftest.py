"""A Hub of ours with one dataset."""

import base64

import pytest

from tests.hub import HubServer


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """(server, commit): `commit(card, files)` makes a dataset or adds to it, and gives its revision."""
    with HubServer(tmp_path / "hub") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.delenv("HF_TOKEN", raising=False)

        def commit(card, contents, repo_id="lab/talk", kind="datasets"):
            if (kind, repo_id) not in server.store.repos:
                server.store.create(kind, repo_id, private=False)
            everything = {"README.md": f"---\n{card}\n---\n# Talk\n".encode(), **contents}
            entries = [
                {"key": "file", "value": {"path": path, "content": base64.b64encode(data).decode()}}
                for path, data in everything.items()
            ]
            header = {"key": "header", "value": {"summary": "data"}}
            return server.store.commit(server.repo(repo_id, kind), "main", [header, *entries])

        yield server, commit
