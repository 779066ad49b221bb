"""One entry with an awkward home, and a project that is quick to start."""

from pathlib import Path

import pytest

from deployments.autostart.entry import Entry

# Everything that a shell, systemd or Task Scheduler reads specially and a folder may be called.
AWKWARD = "日本 home ${HOME} $HOME %h 100% 'q' (x) & ;#"


@pytest.fixture
def entry(tmp_path) -> Entry:
    config = tmp_path / "my config.yaml"
    config.write_text("base: {kind: demo}\ncollect: {sources: []}\n", encoding="utf-8")
    return Entry(tmp_path / AWKWARD, config, ("train.seed=3", 'upload.title="a b\\"'))


def stand_in(folder: Path) -> Path:
    """A stand-in for the project: its `deployments.command` notes how it was started, and stays."""
    package = folder / "deployments"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "command.py").write_text(
        "import json, os, sys, time\n"
        "with open('started.jsonl', 'a', encoding='utf-8', newline='\\n') as file:\n"
        "    file.write(json.dumps({'pid': os.getpid(), 'argv': sys.argv[1:], 'folder': os.getcwd()}) + '\\n')\n"
        "time.sleep(600)\n",
        encoding="utf-8",
    )
    return folder
