"""A machine with a systemd user manager of its own, for one phase of a test; the power goes when this process ends.

Run as root by `unshare --mount --pid --fork --mount-proc`, so that nothing outside is seen or touched:

    python -m tests.autostart.session PHASE HOME CONFIG PROJECT

Prints one JSON object.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deployments.autostart import command, linux
from deployments.autostart.entry import Entry

TIMEOUT_S = 30.0


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Poll until the condition holds; an assertion after TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what}"
        time.sleep(0.02)


def starts(project: Path) -> list[dict]:
    """How the stand-in was started, each time."""
    path = project / "started.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def shown(unit: str, name: str) -> str:
    """A property of the unit, from systemd."""
    done = subprocess.run(
        ["systemctl", "--user", "show", unit, "--value", f"--property={name}"],
        check=True, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    return done.stdout.strip()


def log_on() -> None:
    """Start the user manager on an empty /run, and wait until it has started what it starts."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    runtime = Path("/run/user/0")
    runtime.mkdir(parents=True)
    Path("/run/systemd/system").mkdir(parents=True)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    systemd = shutil.which("systemd") or "/usr/lib/systemd/systemd"
    with Path("/run/manager.log").open("wb") as log:
        subprocess.Popen([systemd, "--user"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    ask = ["systemctl", "--user", "show", "--value", "--property=Version"]
    wait_for("the user manager answers", lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
    wait_for("default.target", lambda: shown("default.target", "ActiveState") == "active")


def first_logon(entry: Entry) -> dict:
    """Install twice and look; nothing is started before the next logon."""
    manager, unit = linux.Systemd(), entry.name + linux.SUFFIX
    told = {
        "before": command._status(manager, entry, given=True),
        "install": command._install(manager, entry),
        "again": command._install(manager, entry),
        "status": command._status(manager, entry, given=True),
        "other": command._status(manager, Entry(entry.home, entry.config, (), False, entry.python), given=True),
        "restart_s": shown(unit, "RestartUSec"),
        "properties": {name: shown(unit, name) for name in ("Restart", "KillMode", "OOMPolicy", "TimeoutStopUSec", "UnitFileState")},
    }  # fmt: skip
    told["started"] = len(starts(entry.project))
    # Half a minute is too long for a test; a drop-in is also what status must see.
    (linux.unit_folder() / f"{unit}.d").mkdir()
    (linux.unit_folder() / f"{unit}.d" / "quick.conf").write_text("[Service]\nRestartSec=100ms\n", encoding="utf-8")
    subprocess.run(["systemctl", "--user", "daemon-reload"], check=True)
    told["dropped_in"] = command._status(manager, entry, given=True)
    return told


def second_logon(entry: Entry) -> dict:
    """It runs by itself; killed, it comes again; removed, what runs goes on, and once killed stays away."""
    unit, project = entry.name + linux.SUFFIX, entry.project
    began = time.monotonic()
    wait_for("the first start", lambda: starts(project))
    told = {"start_s": time.monotonic() - began, "first": starts(project)[0]}
    began = time.monotonic()
    os.kill(told["first"]["pid"], signal.SIGKILL)
    wait_for("the start after kill -9", lambda: len(starts(project)) == 2)
    told["restart_s"] = time.monotonic() - began
    pid = starts(project)[1]["pid"]
    told["restarted_as"] = [pid, int(shown(unit, "MainPID"))]
    told["removed"] = command._remove(linux.Systemd(), entry)
    told["runs_on"] = Path(f"/proc/{pid}").exists()
    told["left"] = sorted(str(path) for path in linux.unit_folder().rglob("*") if entry.name in path.name)
    os.kill(pid, signal.SIGKILL)
    wait_for("the unit is gone", lambda: shown(unit, "ActiveState") in {"inactive", "failed"})
    time.sleep(0.5)
    told["starts"] = len(starts(project))
    return told


def third_logon(entry: Entry) -> dict:
    """Nothing starts any more."""
    time.sleep(0.3)
    return {"starts": len(starts(entry.project)), "status": command._status(linux.Systemd(), entry, given=True)}


PHASES = {"first": first_logon, "second": second_logon, "third": third_logon}

if __name__ == "__main__":
    phase, home, config, project = sys.argv[1:]
    log_on()
    made = Entry(Path(home), Path(config), ('upload.title="a b\\"',), False, Path(sys.executable), Path(project))
    answer = PHASES[phase](made)
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
