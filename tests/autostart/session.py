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

import psutil

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
    """It runs by itself; killed, it comes again; stopped, it is not failed; removed, what runs goes on, and once killed stays away."""
    unit, project = entry.name + linux.SUFFIX, entry.project
    began = time.monotonic()
    wait_for("the first start", lambda: starts(project))
    told = {"start_s": time.monotonic() - began, "first": starts(project)[0]}
    began = time.monotonic()
    os.kill(told["first"]["pid"], signal.SIGKILL)
    wait_for("the start after kill -9", lambda: len(starts(project)) == 2)
    told["restart_s"] = time.monotonic() - began
    os.kill(starts(project)[1]["pid"], signal.SIGTERM)
    wait_for("the start after SIGTERM", lambda: len(starts(project)) == 3)
    subprocess.run(["systemctl", "--user", "stop", unit], check=True)
    told["stopped"] = shown(unit, "ActiveState")
    subprocess.run(["systemctl", "--user", "start", unit], check=True)
    wait_for("the start by hand", lambda: len(starts(project)) == 4)
    pid = starts(project)[-1]["pid"]
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


def real_first_logon(entry: Entry) -> dict:
    """Register the real thing."""
    return {"install": command._install(linux.Systemd(), entry)}


def real_second_logon(entry: Entry) -> dict:
    """It is up by itself; killed, it is up again; a run is begun, and the power goes in the middle of training."""
    unit = entry.name + linux.SUFFIX
    began = time.monotonic()
    wait_for("`so8t up` works", lambda: _works(entry))
    told = {"up_s": time.monotonic() - began}
    pid = shown(unit, "MainPID")
    os.kill(int(pid), signal.SIGKILL)
    began = time.monotonic()
    wait_for("another process", lambda: shown(unit, "MainPID") not in {"0", pid})
    told["restart_s"] = time.monotonic() - began
    wait_for("`so8t up` works again", lambda: _works(entry))
    _ask(entry, "from prefect.deployments import run_deployment; run_deployment('so8t-pipeline/so8t', timeout=0)")
    wait_for("training", lambda: [*entry.home.glob("artifacts/train/*.partial")])
    return told | {"runs": _runs(entry)}


def real_third_logon(entry: Entry) -> dict:
    """The run goes on by itself to its end; then the entry goes, as its config asks."""
    began = time.monotonic()
    wait_for("`so8t up` works", lambda: _works(entry))
    told = {"up_s": time.monotonic() - began}
    wait_for("the run is taken up", lambda: _runs(entry)[0][1:] == ["Running", 2])
    told["resumed_s"] = time.monotonic() - began
    wait_for("the run has ended", lambda: _runs(entry)[0][1] in {"Completed", "Failed"})
    wait_for("the entry is gone", lambda: not linux.Systemd().find(entry.home))
    return told | {"runs": _runs(entry), "up": shown(entry.name + linux.SUFFIX, "ActiveState")}


def _works(entry: Entry) -> bool:
    """Whether the server answers and `so8t up` has a worker."""
    from deployments.server import running_port

    pid = int(shown(entry.name + linux.SUFFIX, "MainPID"))
    if not pid or not running_port(entry.home / "prefect" / "server.json"):
        return False
    try:
        return any("worker" in child.cmdline() for child in psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return False


def _ask(entry: Entry, code: str) -> str:
    """What a program prints that talks to the server, as a user's terminal would."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PREFECT_HOME": str(entry.home / "prefect")},
        check=True, capture_output=True, text=True, encoding="utf-8", cwd=entry.home,
    )  # fmt: skip
    return done.stdout


def _runs(entry: Entry) -> list[list]:
    """Id, state and number of starts of every flow run."""
    code = (
        "import json; from prefect.client.orchestration import get_client\n"
        "runs = [run for run in get_client(sync_client=True).read_flow_runs() if 'so8t' in run.tags]\n"
        "print(json.dumps([[str(run.id), run.state_name, run.run_count] for run in runs]))"
    )
    return json.loads(_ask(entry, code).splitlines()[-1])


PHASES = {
    "first": first_logon, "second": second_logon, "third": third_logon,
    "real_first": real_first_logon, "real_second": real_second_logon, "real_third": real_third_logon,
}  # fmt: skip
REAL = ("machine.server_port=0", "cleanup.remove_autostart=true")

if __name__ == "__main__":
    phase, home, config, project = sys.argv[1:]
    log_on()
    real = phase.startswith("real")
    TIMEOUT_S = 900.0 if real else TIMEOUT_S
    overrides = REAL if real else ('upload.title="a b\\"',)
    made = Entry(Path(home), Path(config), overrides, False, Path(sys.executable), Path(project))
    answer = PHASES[phase](made)
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
