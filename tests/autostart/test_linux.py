"""Linux's entry: systemd's own reading of the unit, and a real user manager: start, kill, power cut, second start."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.autostart import linux
from deployments.autostart.manager import AutostartFailed
from so8t.errors import UserError
from tests.autostart.conftest import AWKWARD, stand_in
from tests.conftest import ROOT

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not there")


def _verify(folder: Path, text: str, name: str = "so8t-up-test.service") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(path)],
        check=False, capture_output=True, text=True, encoding="utf-8", env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
    )  # fmt: skip
    return done.stderr


@needs_analyze
def test_systemd_finds_nothing_to_say(tmp_path, entry):
    assert _verify(tmp_path, linux.render(entry)) == ""


@needs_analyze
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("StartLimitIntervalSec=0", "StartLimitIntervalSecs=0"),
        ("Type=simple", "Type=simpel"),
        ("Restart=on-failure", "Restart=on-fail"),
        ("RestartSec=30", "RestartSec=soon"),
        ("KillMode=mixed", "KillMode=mixd"),
        ("TimeoutStopSec=120", "TimeoutStopSec=-"),
        ("OOMPolicy=continue", "OOMPolicy=go on"),
        ("WorkingDirectory=/", "WorkingDirectory=x/"),
        ("ExecStart=:", "ExecStart=:/no/such/program "),
        ('ExecStart=:"', 'ExecStart=:"x'),
        ("[Service]", "[Servic]"),
    ],
)
def test_a_broken_unit_is_not_registered(tmp_path, monkeypatch, entry, old, new):
    """systemd-analyze exits 0 on most of these: what it says decides."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    text = linux.render(entry)
    assert old in text
    with pytest.raises(AutostartFailed, match="faults in the unit"):
        linux.verify(entry.name, text.replace(old, new, 1))


@needs_analyze
def test_a_good_unit_passes_our_check(tmp_path, monkeypatch, entry):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    linux.verify(entry.name, linux.render(entry))


@needs_analyze
def test_where_systemd_analyze_cannot_look_nothing_passes(tmp_path, monkeypatch, entry):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AutostartFailed, match="faults in the unit"):
        linux.verify(entry.name, linux.render(entry))


@pytest.mark.parametrize("name", ["back\\", "after "])
def test_what_systemd_would_misread_is_refused(entry, name):
    with pytest.raises(UserError, match="differently"):
        linux.render(replace(entry, project=Path("/" + name)))
    with pytest.raises(UserError, match="differently"):
        linux.render(replace(entry, project=Path("/x/" + name)))


def test_a_relative_config_folder_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert linux.unit_folder() == tmp_path / "systemd" / "user"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert linux.unit_folder() == Path.home() / ".config" / "systemd" / "user"


def test_without_a_user_manager_nothing_is_written(tmp_path, entry, monkeypatch):
    if shutil.which("systemctl") is None:
        pytest.skip("systemctl is not there")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "units"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    with pytest.raises(AutostartFailed, match="log in as this user"):
        linux.Systemd().install(entry)
    assert not (tmp_path / "units").exists()
    unit = linux.unit_folder() / f"{entry.name}.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(linux.render(entry), encoding="utf-8")
    (found,) = linux.Systemd().find(entry.home)
    assert any("not checked" in fault for fault in found.faults)


def _phase(phase: str, tmp_path: Path, home: Path, project: Path, config: str = "demo") -> dict:
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         sys.executable, "-m", "tests.autostart.session", phase, str(home), str(ROOT / "configs" / f"{config}.yaml"), str(project)],
        check=False, capture_output=True, text=True, encoding="utf-8", cwd=ROOT, stdin=subprocess.DEVNULL, timeout=1800,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _own_manager() -> str:
    """Why this machine cannot give a test a user manager of its own; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a user manager of its own needs Linux and root"
    if not Path("/usr/lib/systemd/systemd").exists() or shutil.which("unshare") is None:
        return "systemd and unshare are not there"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/run"],
        check=False, capture_output=True,
    )  # fmt: skip
    return "" if tried.returncode == 0 else "this machine lets nobody unshare and mount"


@pytest.mark.skipif(bool(_own_manager()), reason=_own_manager() or "never")
def test_power_cut_kill_and_removal_under_a_real_systemd(tmp_path):
    """Three logons of one machine, each ended by a power cut."""
    project, home = stand_in(tmp_path / AWKWARD), tmp_path / ("home of " + AWKWARD)
    first = _phase("first", tmp_path, home, project)
    assert (first["before"], first["install"], first["again"], first["status"]) == (1, 0, 0, 0)
    assert (first["other"], first["dropped_in"], first["started"]) == (1, 1, 0)
    assert first["restart_s"] == "30s"
    assert first["properties"] == {
        "Restart": "on-failure", "KillMode": "mixed", "OOMPolicy": "continue", "TimeoutStopUSec": "2min",
        "UnitFileState": "enabled",
    }  # fmt: skip

    second = _phase("second", tmp_path, home, project)
    assert second["first"]["argv"] == [
        "up", "--config", str(ROOT / "configs" / "demo.yaml"), "--home", str(home), "--set", 'upload.title="a b\\"',
    ]  # fmt: skip
    assert second["first"]["folder"] == str(project)
    assert second["restarted_as"][0] == second["restarted_as"][1]
    assert (second["removed"], second["runs_on"], second["left"]) == (0, True, [])
    assert second["stopped"] == "inactive"
    assert second["starts"] == 4, "a removed unit was started again"

    assert _phase("third", tmp_path, home, project) == {"starts": 4, "status": 1}


@pytest.mark.soak
@pytest.mark.timeout(5400)
@pytest.mark.skipif(bool(_own_manager()), reason=_own_manager() or "never")
def test_a_run_goes_on_by_itself_after_a_power_cut(tmp_path, capsys):
    """The real `so8t up`, started by systemd alone: killed, and cut in the middle of training."""
    home = tmp_path / "home 日本"
    assert _phase("real_first", tmp_path, home, ROOT, "smoke") == {"install": 0}
    second = _phase("real_second", tmp_path, home, ROOT, "smoke")
    third = _phase("real_third", tmp_path, home, ROOT, "smoke")
    with capsys.disabled():
        print(f"\nup {second['up_s']:.1f} s after logon; again {second['restart_s']:.1f} s after kill -9")  # noqa: T201
        print(f"after the cut up in {third['up_s']:.1f} s, the run went on after {third['resumed_s']:.1f} s")  # noqa: T201
    assert len(second["runs"]) == 1
    assert third["runs"] == [[second["runs"][0][0], "Completed", 2]]
    assert third["up"] == "active", "removing the entry stopped what ran"
