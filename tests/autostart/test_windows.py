"""Windows' entry: registered, read back, compared, replaced and removed; and with Wine's own schtasks."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.autostart import command
from deployments.autostart.manager import AutostartFailed
from deployments.autostart.windows import TaskScheduler, lossy_equal, render
from so8t.errors import UserError
from tests.autostart import schtasks


@pytest.fixture
def windows_entry(entry):
    """Task Scheduler expands %...% and has no names with quotes in them."""
    return replace(entry, home=entry.home.with_name("日本 home & ;#"))


def _scheduler(folder: Path, page="cp932", program="schtasks") -> TaskScheduler:
    folder.mkdir(exist_ok=True)
    start = [sys.executable, "-IS", schtasks.__file__, str(folder), page]
    return TaskScheduler([*start, program], [*start, "whoami"], page, schtasks.USER)


@pytest.mark.parametrize("page", ["cp932", "cp437"])
def test_install_status_remove(tmp_path, windows_entry, page, capsys):
    """cp437 cannot show the home's name: what comes back is full of question marks, and still it is known."""
    manager, tasks = _scheduler(tmp_path / "tasks", page), tmp_path / "tasks"
    assert command._status(manager, windows_entry, given=True) == 1
    assert command._install(manager, windows_entry) == 0
    assert command._status(manager, windows_entry, given=True) == 0
    assert command._status(manager, windows_entry, given=False) == 0
    assert command._install(manager, windows_entry) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("not registered")
    assert [line.split()[0] for line in said.splitlines() if windows_entry.name in line and "read back" in line] == [
        "registered", "unchanged",
    ]  # fmt: skip
    assert command._remove(manager, windows_entry) == 0
    assert list(tasks.iterdir()) == []
    assert command._remove(manager, windows_entry) == 0


def test_another_config_is_replaced_and_said(tmp_path, windows_entry, capsys):
    manager = _scheduler(tmp_path / "tasks")
    command._install(manager, windows_entry)
    other = replace(windows_entry, overrides=(), network=True)
    assert command._status(manager, other, given=True) == 1
    assert "--set" in capsys.readouterr().out
    assert command._install(manager, other) == 0
    said = capsys.readouterr().out
    assert said.startswith("replaced")
    assert "RunOnlyIfNetworkAvailable: false; wanted true" in said
    assert command._status(manager, replace(other, network=False), given=False) == 0


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("<DisallowStartIfOnBatteries>false<", "<DisallowStartIfOnBatteries>true<", "DisallowStartIfOnBatteries"),
        ("<ExecutionTimeLimit>PT0S</ExecutionTimeLimit>", "", "ExecutionTimeLimit"),
        ("<Settings>", "<Settings><Enabled>false</Enabled>", "Enabled"),
        ("train.seed=3", "train.seed=4", "train.seed=4"),
        ("PT15M", "PT45M", "PT45M"),
        (schtasks.SID, "S-1-5-21-9-9-9-500", "S-1-5-21-9-9-9-500"),
        ("</Task>", "", "XML"),
    ],
)
def test_what_somebody_changed_is_seen(tmp_path, windows_entry, old, new, fault, capsys):
    manager = _scheduler(tmp_path / "tasks")
    command._install(manager, windows_entry)
    path = tmp_path / "tasks" / f"{windows_entry.name}.xml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    capsys.readouterr()
    assert command._status(manager, windows_entry, given=True) == 1
    assert any(fault in line for line in capsys.readouterr().out.splitlines() if line.startswith("fault"))
    assert command._install(manager, windows_entry) == 0


def test_an_older_version_is_removed(tmp_path, windows_entry, capsys):
    """An entry under another name of ours that starts the same home; another home's and a stranger's stay."""
    manager, tasks = _scheduler(tmp_path / "tasks"), tmp_path / "tasks"
    command._install(manager, windows_entry)
    (tasks / f"{windows_entry.name}.xml").rename(tasks / "SO8T-AutoResume.xml")
    neighbour = replace(windows_entry, home=tmp_path / "other")
    command._install(manager, neighbour)
    (tasks / "Backup.xml").write_text((tasks / "SO8T-AutoResume.xml").read_text(encoding="utf-8"), encoding="utf-8")
    assert command._status(manager, windows_entry, given=True) == 1
    assert command._install(manager, windows_entry) == 0
    assert "SO8T-AutoResume, an older entry" in capsys.readouterr().out
    kept = {"Backup", neighbour.name}
    assert {path.stem for path in tasks.iterdir()} == kept | {windows_entry.name}
    (tasks / f"{windows_entry.name}.xml").rename(tasks / "so8t-old.xml")
    assert command._remove_all(manager, windows_entry.home, stop=False) == ["so8t-old"]
    assert {path.stem for path in tasks.iterdir()} == kept


def test_an_exit_code_is_not_believed(tmp_path, windows_entry):
    """A scheduler that says 0 to everything and shows nothing: Wine's."""
    with pytest.raises(AutostartFailed, match="is not registered"):
        command._install(_scheduler(tmp_path / "tasks", program="wine"), windows_entry)


def test_what_windows_says_is_passed_on(tmp_path, windows_entry):
    with pytest.raises(AutostartFailed, match="エラー"):
        _scheduler(tmp_path / "tasks").remove(windows_entry.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"project": Path("/" + "x" * 260)}, "project's path has 261 characters"),
        ({"python": Path("/" + "x" * 260)}, "interpreter's path has 261 characters"),
        ({"home": Path("/a/%TEMP%/b")}, "does not expand"),
        ({"home": Path("/a/$(Arg0)/b")}, "does not expand"),
        ({"overrides": tuple(f"train.seed={'1' * 100}" for _ in range(300))}, "at most 32767"),
    ],
)
def test_what_windows_cannot_take_is_refused(entry, change, words):
    with pytest.raises(UserError, match=words) as refused:
        render(replace(replace(entry, home=entry.home.with_name("home")), **change), schtasks.USER)
    assert refused.value.wanted
    assert refused.value.do


def test_260_characters_are_taken(entry):
    root = Path.cwd().anchor
    path = Path(root + "x" * (260 - len(root)))
    assert str(path) in render(replace(entry, home=path, project=path, python=path), schtasks.USER).decode("utf-16")


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ("C:\\日本", "C:\\??", True),
        ("C:\\日本", "C:\\日本", True),
        ("C:\\𠮷", "C:\\??", True),
        ("C:\\日本", "C:\\", False),
        ("C:\\ab", "C:\\??", False),
        ("a.b", "axb", False),
    ],
)
def test_what_the_console_loses(wanted, found, same):
    assert lossy_equal(wanted, found) is same


@pytest.mark.skipif(shutil.which("wine") is None, reason="Wine is not installed")
def test_wine_creates_and_deletes_it(tmp_path, windows_entry):
    """Wine parses the file and keeps the task; its queries do nothing, so only the exit codes that differ count."""
    task, broken = tmp_path / "task.xml", tmp_path / "broken.xml"
    data = render(windows_entry, schtasks.USER)
    task.write_bytes(data)
    broken.write_bytes(b"\xff\xfe" + data.decode("utf-16").replace("</Exec>", "").encode("utf-16-le"))
    environment = {**os.environ, "WINEPREFIX": str(tmp_path / "prefix"), "WINEDEBUG": "-all", "DISPLAY": ""}

    def wine(*arguments: str) -> int:
        # Not captured: Wine's services would hold the pipe open.
        return subprocess.run(
            ["wine", *arguments], env=environment, check=False, timeout=240,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode  # fmt: skip

    def create(path: Path, *more: str) -> int:
        return wine(
            "schtasks", "/create", "/xml", "Z:" + str(path).replace("/", "\\"), "/tn", windows_entry.name, *more
        )

    wineserver = shutil.which("wineserver") or "/usr/lib/wine/wineserver"
    try:
        assert create(broken) == 1
        assert create(task) == 0
        assert create(task) == 1, "the first one was not kept"
        assert create(task, "/f") == 0
        assert wine("schtasks", "/delete", "/tn", windows_entry.name, "/f") == 0
        assert wine("schtasks", "/delete", "/tn", windows_entry.name, "/f") == 1, "the task outlived its removal"
    finally:
        subprocess.run([wineserver, "-k"], env=environment, check=False)
