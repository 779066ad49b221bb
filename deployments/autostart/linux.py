"""Linux: a systemd user unit, so no administrator is asked."""

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import psutil

from deployments.autostart.entry import PREFIX, Entry, name_of, read_command
from deployments.autostart.manager import AutostartFailed, Called, Preview, Registered, call, line_differences
from so8t import durable
from so8t.errors import UserError

SUFFIX = ".service"
# Restart without limit: whoever counts attempts is the supervisor, which knows about progress.
# A SIGTERM that systemd did not send is no wish to stop for good; one that it sent is a clean end (143 = 128 + 15).
# mixed: the supervisor gets SIGTERM and stops its children itself; 120 s is for emergency checkpoints.
# OOMPolicy: a child that the kernel kills is the supervisor's affair, not the end of the unit.
UNIT = """\
# Made by `so8t autostart install`.
[Unit]
Description=SO8T pipeline, home {home}
StartLimitIntervalSec=0

[Service]
Type=simple
WorkingDirectory={folder}
ExecStart=:{command}
Restart=on-failure
RestartSec=30
RestartForceExitStatus=130 143 SIGINT SIGTERM
SuccessExitStatus=130 143
KillMode=mixed
TimeoutStopSec=120
OOMPolicy=continue

[Install]
WantedBy=default.target
"""
SHOWN = ("LoadState", "UnitFileState", "FragmentPath", "ActiveState", "SubState", "NeedDaemonReload", "DropInPaths")


def render(entry: Entry) -> str:
    """The unit; UserError where systemd would read other paths than were meant."""
    text = UNIT.format(
        home=_plain(str(entry.home)),
        folder=_plain(str(entry.project)),
        command=" ".join(_word(part) for part in entry.command),
    )
    if read_unit(text) != (entry.command, str(entry.project)):
        raise UserError(
            f"systemd would read the folder {str(entry.project)!r} differently",
            "a path that ends neither in a backslash nor in a space",
            "move the project to another folder",
        )
    return text


def _plain(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    # The colon after ExecStart= already keeps systemd from expanding $.
    return '"' + _plain(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_unit(text: str) -> tuple[tuple[str, ...], str]:
    """Command line and working directory of a unit, as systemd reads them; empty where it has none."""
    values: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            values[key.strip()] = value.strip()
    try:
        words = shlex.split(values.get("ExecStart", "").lstrip(":-@+!"))
    except ValueError:
        words = []
    return tuple(word.replace("%%", "%") for word in words), values.get("WorkingDirectory", "").replace("%%", "%")


def unit_folder() -> Path:
    """Where the user's units are; a relative XDG_CONFIG_HOME is ignored, as the XDG specification demands."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(configured) if Path(configured).is_absolute() else Path.home() / ".config") / "systemd" / "user"


class Systemd:
    """systemd's user manager."""

    def preview(self, entry: Entry, action: str) -> Preview:
        """What would be written and run."""
        unit, path = entry.name + SUFFIX, unit_folder() / (entry.name + SUFFIX)
        commands = {
            "install": ("systemctl --user daemon-reload", f"systemctl --user reenable {unit}"),
            "remove": (
                f"rm {path}",
                f"rm {path.parent}/default.target.wants/{unit}",
                "systemctl --user daemon-reload",
            ),
        }[action]
        return Preview(str(path), render(entry), "UTF-8", commands)

    def install(self, entry: Entry) -> None:
        """Write the unit, have systemd check it, enable it; what was there before comes back where that fails."""
        text, path = render(entry), unit_folder() / (entry.name + SUFFIX)
        _answer()
        verify(entry.name, text)
        before = path.read_bytes() if path.exists() else None
        durable.write_text(path, text)
        try:
            _systemctl("daemon-reload")
            # Links of an older version, under another target perhaps, go as well.
            _systemctl("reenable", path.name)
            durable.fsync_folder(path.parent / "default.target.wants")
        except AutostartFailed:
            if before is None:
                self.remove(entry.name, stop=False)
            else:
                durable.write_bytes(path, before)
                _systemctl("daemon-reload")
            raise

    def find(self, home: Path) -> list[Registered]:
        """Units of ours that start this home, read from the disk and compared with what systemd has loaded."""
        own = name_of(home) + SUFFIX
        names = [own] if _files(own) else []
        for path in sorted(unit_folder().glob(f"{PREFIX[:4]}*{SUFFIX}")):
            started = read_command(read_unit(path.read_text(encoding="utf-8", errors="replace"))[0])
            if path.name != own and started.home == str(home):
                names.append(path.name)
        return [_registered(name) for name in names]

    def remove(self, name: str, *, stop: bool = False) -> None:
        """Remove the unit, its links and its drop-ins; a running `so8t up` goes on and is not started again."""
        unit = name if name.endswith(SUFFIX) else name + SUFFIX
        for path in _files(unit):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            durable.fsync_folder(path.parent)
        _systemctl("daemon-reload")

    def differences(self, entry: Entry, found: Registered) -> list[str]:
        """Line by line."""
        return line_differences(render(entry), found.text)

    def notes(self, entry: Entry) -> list[str]:
        """How to start, read and keep it."""
        user = user_name()
        return [
            f"It starts at the next logon; now: systemctl --user start {entry.name}{SUFFIX}",
            f"Its output: journalctl --user -u {entry.name}{SUFFIX}",
            f"Lingering is {lingering(user)}. Without it systemd starts the unit when you log in and stops it when you log out.",
            f"To start with the machine, after a power cut and with nobody there: loginctl enable-linger {user}",
            "The machine itself must switch on again: in its BIOS, restore power after AC loss.",
        ]


def user_name() -> str:
    """Of whoever runs this; the number where nobody has named it, as in some containers."""
    return psutil.Process().username()


def _files(unit: str) -> list[Path]:
    """The unit's file, its links, its drop-ins and what a killed writer left, as far as they are there."""
    folder = unit_folder()
    found = [folder / unit, folder / f"{unit}.d"]
    for pattern in (f"*.wants/{unit}", f"*.requires/{unit}", f"{unit}.*.tmp"):
        found += folder.glob(pattern)
    return [path for path in found if path.exists() or path.is_symlink()]


def _registered(unit: str) -> Registered:
    path = unit_folder() / unit
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    command, folder = read_unit(text)
    faults = [] if text else [f"the unit file {path} is missing; only its link is left"]
    shown = call(["systemctl", "--user", "show", unit, *(f"--property={name}" for name in SHOWN)])
    if shown.code != 0:
        faults.append(f"systemd's user manager does not answer, so this is not checked: {shown.words()}")
        return Registered(unit, str(path), text, command, read_command(command), folder, "unknown", tuple(faults))
    state = dict(line.split("=", 1) for line in shown.out.decode("utf-8", "replace").splitlines() if "=" in line)
    if text and (state["LoadState"], state["FragmentPath"]) != ("loaded", str(path)):
        faults.append(f"systemd has {state['LoadState']} {state['FragmentPath'] or 'nothing'} under this name")
    if state["UnitFileState"] != "enabled":
        faults.append(f"systemd calls it {state['UnitFileState'] or 'unknown'}, not enabled")
    if state["NeedDaemonReload"] != "no":
        faults.append("the file was changed after systemd read it: systemctl --user daemon-reload")
    if state["DropInPaths"]:
        faults.append(f"drop-ins change it: {state['DropInPaths']} (systemctl --user revert {unit})")
    now = f"{state['ActiveState']} ({state['SubState']})"
    return Registered(unit, str(path), text, command, read_command(command), folder, now, tuple(faults))


def verify(name: str, text: str) -> None:
    """Have systemd-analyze read the unit where it is installed; it exits 0 on most faults, so its words decide."""
    if shutil.which("systemd-analyze") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (name + SUFFIX)
        durable.write_text(path, text)
        done = call(["systemd-analyze", "verify", "--user", str(path)])
    said = done.err.decode("utf-8", "replace").splitlines()
    # It reads the units that ours refers to as well; their faults are not ours.
    faults = [line for line in said if name in line or done.code != 0]
    if faults or done.code != 0:
        raise AutostartFailed("systemd-analyze finds faults in the unit:\n  " + "\n  ".join(faults))


def lingering(user: str) -> str:
    """Whether the user's units run without a login: on, off or unknown."""
    if shutil.which("loginctl") is None:
        return "unknown"
    shown = call(["loginctl", "show-user", user, "--property=Linger", "--value"])
    return {b"yes": "on", b"no": "off"}.get(shown.out.strip(), "unknown")


def _answer() -> None:
    _systemctl("show", "--property=Version")


def _systemctl(*arguments: str) -> Called:
    done = call(["systemctl", "--user", *arguments])
    if done.code != 0:
        raise AutostartFailed(
            f"systemctl --user {' '.join(arguments)} failed: {done.words()}\n"
            "  do:     log in as this user (not by su or sudo), then give the same command again"
        )
    return done
