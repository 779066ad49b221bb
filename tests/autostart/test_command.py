"""`so8t autostart` as a user gives it: dry runs for every platform, refusals, names, and launchd by a stand-in."""

import os
import plistlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.autostart import command, linux, macos
from deployments.autostart.entry import Entry, interpreter, name_of, read_command
from deployments.autostart.manager import Registered
from deployments.autostart.task_rules import check_task, split_command
from deployments.command import COMMANDS
from so8t import cli
from so8t.errors import UserError
from tests.autostart import launchctl
from tests.conftest import ROOT


def _so8t(*arguments: str) -> int:
    return cli.main(["autostart", *arguments], COMMANDS)


@pytest.fixture
def untouched(tmp_path, monkeypatch) -> Path:
    """A user's folder that must stay empty."""
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    return home


@pytest.mark.parametrize("platform", ["windows", "linux", "macos"])
def test_a_dry_run_prints_the_very_file(platform, untouched, tmp_path, monkeypatch, capsys):
    """Relative paths become absolute, the interpreter is this one, and the command is that of `so8t up`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_bytes((ROOT / "configs" / "demo.yaml").read_bytes())
    given = ["install", "--dry-run", "--platform", platform, "--config", "mine.yaml", "--home", "日本 home"]
    assert _so8t(*given, "--set", "machine.workers=3") == 0
    out, err = capsys.readouterr()
    if platform == "windows":
        data = b"\xff\xfe" + out.encode("utf-16-le")
        assert check_task(data) == []
        arguments = split_command(out.partition("<Arguments>")[2].partition("</Arguments>")[0].replace("&quot;", '"'))
        words = [out.partition("<Command>")[2].partition("</Command>")[0], *arguments]
        assert f"<WorkingDirectory>{ROOT}</WorkingDirectory>" in out
        assert "schtasks /create /xml" in err
        assert "<RunOnlyIfNetworkAvailable>false<" in out
    elif platform == "linux":
        words, folder = linux.read_unit(out)
        assert folder == str(ROOT)
        assert "systemctl --user" in err
    else:
        agent = plistlib.loads(out.encode("utf-8"))
        words = agent["ProgramArguments"][2:]
        assert agent["WorkingDirectory"] == str(ROOT)
        assert "launchctl bootstrap gui/" in err
    assert list(words) == [
        sys.executable, "-X", "utf8", "-m", "deployments.command", "up", "--config", str(tmp_path / "mine.yaml"),
        "--home", str(tmp_path / "日本 home"), "--set", "machine.workers=3",
    ]  # fmt: skip
    assert _so8t("remove", *given[1:]) == 0
    assert list(untouched.iterdir()) == []
    assert not (tmp_path / "日本 home").exists()


def test_what_it_would_start_is_a_real_command(tmp_path):
    """The registered words, from another folder's point of view: `--help` in place of what follows `up`."""
    entry = Entry(tmp_path, ROOT / "configs" / "demo.yaml")
    words = list(entry.command[: entry.command.index("up") + 1])
    done = subprocess.run(
        [*words, "--help"], cwd=entry.project, env={"PATH": os.environ["PATH"]},
        check=False, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["install", "--platform", "macos"], "--dry-run"),
        (["status", "--dry-run"], "status changes nothing"),
        (["install", "--network", "--platform", "linux", "--dry-run"], "Windows"),
        (["install", "--config", "no/such.yaml"], "no config file"),
        (["install", "--set", "train.sed=3"], "did you mean 'seed'"),
        (["install", "--dry-run", "--platform", "windows", "--home", "/a/%TEMP%/b"], "does not expand"),
        (["install", "--dry-run", "--home", "/a/b\nc"], "control characters"),
    ],
)
def test_bad_usage_is_explained(arguments, words, untouched, capsys):
    if arguments[:3] == ["install", "--platform", "macos"] and sys.platform == "darwin":
        pytest.skip("this is a Mac")
    assert _so8t(*arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "wanted:" in err
    assert list(untouched.iterdir()) == []


def test_network_is_asked_for_on_windows_alone(untouched, capsys):
    assert _so8t("install", "--network", "--platform", "windows", "--dry-run") == 0
    assert "<RunOnlyIfNetworkAvailable>true<" in capsys.readouterr().out


SECRET = "a-value-nobody-may-read"


@pytest.mark.parametrize(
    "override",
    [
        "upload.repo=hf_abcdefghijklmnopqrst", "upload.url='https://me:password@host/'", "x.y=sk-abcdefghijklmnopqrstuv",
        f"notify.url=apprise://{SECRET}/x",
    ],
)  # fmt: skip
def test_no_secret_is_registered_nor_repeated(override, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    with pytest.raises(UserError, match="password or a token") as refused:
        Entry(tmp_path, tmp_path / "c.yaml", (override,))
    assert override.partition("=")[2] not in str(refused.value)


def test_a_path_in_the_environment_is_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path))
    monkeypatch.setenv("SHORT_TOKEN", "up")
    assert Entry(tmp_path, tmp_path / "c.yaml").command


def test_two_homes_have_two_names_and_one_home_has_one(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert name_of(tmp_path / "a") != name_of(tmp_path / "b")
    assert name_of(tmp_path / "a") == name_of(tmp_path / "link") == name_of(tmp_path / "b" / ".." / "a")
    assert name_of(Path("/home/me/.so8t")) == "so8t-up-6d242f67"


def test_a_windowless_interpreter_is_not_registered(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "pythonw.exe"))
    assert interpreter() == tmp_path / "python.exe"


def test_an_older_command_line_is_understood():
    words = [
        "/usr/bin/caffeinate",
        "-i",
        "/v/python",
        "-m",
        "deployments.command",
        "up",
        "--home",
        "/h",
        "--other",
        "x",
    ]
    read = read_command(words)
    assert (read.python, read.home, read.config, read.overrides) == ("/v/python", "/h", "", ())
    assert read_command(["python", "-m", "deployments.command", "run", "--home", "/h"]).home == ""
    assert read_command(["python", "deployments.command"]).home == ""


def test_what_is_gone_is_named(tmp_path, entry):
    """A virtual environment, a config or a project that was moved after the installation."""
    moved = replace(
        entry, python=tmp_path / "gone" / "python", config=tmp_path / "gone.yaml", project=tmp_path / "gone"
    )
    found = Registered("n", "p", "", moved.command, read_command(moved.command), str(moved.project), "", ())
    assert [fault.split()[1] for fault in command.missing_files(found)] == ["interpreter", "config", "working"]
    found = replace(found, command=entry.command, started=read_command(entry.command), folder=str(entry.project))
    assert command.missing_files(found) == []


def test_a_broken_config_does_not_hide_the_entry(untouched, tmp_path, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: [", encoding="utf-8")
    assert _so8t("status", "--home", str(tmp_path / "h"), "--config", str(broken)) == 1
    assert _so8t("install", "--home", str(tmp_path / "h"), "--config", str(broken)) == 2
    assert capsys.readouterr().out.startswith("not registered: so8t-up-")


def test_the_doctor_speaks_of_it(untouched, tmp_path):
    from deployments.doctor import _autostart
    from so8t.config import load_config

    config = load_config(ROOT / "configs" / "demo.yaml", (), tmp_path / "h")
    finding = _autostart(config)
    assert (finding.state, finding.do) == ("warn", "so8t autostart install")
    assert command.remove(tmp_path / "h") == []


def test_the_entry_goes_with_the_last_run_where_the_config_asks(tmp_path, launchd, untouched, entry, monkeypatch):
    """Only a completed run of this supervisor counts, and an open one keeps the entry; an expired one does not."""
    from so8t.artifacts import Store
    from so8t.config import load_config
    from so8t.session import Heartbeat, SessionFile, now
    from tests.upload.made import artifact

    monkeypatch.setitem(command.PLATFORMS, sys.platform, "macos")
    asked = load_config(ROOT / "configs" / "demo.yaml", ["cleanup.remove_autostart=true"], entry.home)
    silent = load_config(ROOT / "configs" / "demo.yaml", [], entry.home)
    manager = macos.Launchd()
    manager.install(entry)

    def session(name: str, kind: str, **values) -> SessionFile:
        file = SessionFile.open(entry.home, name, kind)
        file.update(**values)
        return file

    assert command.retire(asked, "me") == []
    run = session("run-a", "run", supervisor="me")
    run.end("completed")
    assert command.retire(asked, "me") == [], "a run without an upload"
    for key, verified in (("1" * 64, 2), ("2" * 64, 3)):
        assert command.retire(asked, "me") == [], "an upload that is not there, or not all of it verified"
        artifact(Store(entry.home), "upload", {"card": b""}, key=key, facts={"files": 3, "verified": verified})
        run.note_artifact(f"upload/{key}")
        run.end("completed")
    other = session("run-b", "run", supervisor="other", status="interrupted", heartbeat=Heartbeat(time=now()))
    assert command.retire(asked, "me") == []
    other.update(heartbeat=Heartbeat(time="2020-01-01T00:00:00.000+00:00"))
    assert command.retire(silent, "me") == command.retire(asked, "somebody") == []
    assert manager.find(entry.home)
    assert command.retire(asked, "me") == [f"removed {entry.name}: every run is finished"]
    assert manager.find(entry.home) == []
    assert [path.name for path in launchd.iterdir()] == [entry.name], "what runs was stopped"
    assert command.retire(asked, "me") == []


@pytest.fixture
def launchd(tmp_path, untouched, monkeypatch) -> Path:
    """A folder that says which agents are loaded."""
    if os.name == "nt":
        pytest.skip("the stand-in is a shell script")
    loaded, programs = tmp_path / "loaded", tmp_path / "bin"
    loaded.mkdir()
    programs.mkdir()
    script = programs / "launchctl"
    script.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -IS "{launchctl.__file__}" "{loaded}" "$@"\n', encoding="ascii"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return loaded


def test_an_agent_comes_and_goes(launchd, untouched, entry, monkeypatch, capsys):
    manager, agents = macos.Launchd(), untouched / "Library" / "LaunchAgents"
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert command._status(manager, entry, given=True) == 1
    assert command._install(manager, entry) == 0
    assert command._install(manager, entry) == 0
    assert command._status(manager, entry, given=True) == 0
    assert command._status(manager, replace(entry, overrides=()), given=True) == 1
    assert [path.name for path in launchd.iterdir()] == [entry.name]
    (launchd / f"{entry.name}.off").touch()
    assert command._status(manager, entry, given=True) == 1
    said = capsys.readouterr().out
    assert "switched off among the login items" in said
    assert "not carried along: HF_TOKEN" in said
    assert SECRET not in said + (agents / f"{entry.name}.plist").read_text(encoding="utf-8")
    (launchd / f"{entry.name}.off").unlink()
    assert command._remove_all(manager, entry.home, stop=False) == [entry.name]
    assert [path.name for path in launchd.iterdir()] == [entry.name], "what runs was stopped"
    assert command._install(manager, entry) == 0
    assert command._remove(manager, entry) == 0
    assert list(launchd.iterdir()) == list(agents.iterdir()) == []


def test_an_agent_restarts_what_failed_and_only_that(entry):
    agent = plistlib.loads(macos.render(entry))
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert (agent["RunAtLoad"], agent["ThrottleInterval"], agent["ExitTimeOut"]) == (True, 60, 120)
    assert agent["ProgramArguments"] == ["/usr/bin/caffeinate", "-i", *entry.command]
