"""macOS: a launchd agent of the logged-on user. Only the property list's syntax is tested; nothing here ran on a Mac."""

import os
import plistlib
import time
from pathlib import Path
from typing import Any

from deployments.autostart.entry import PREFIX, Entry, name_of, read_command
from deployments.autostart.manager import (
    CALL_TIMEOUT_S,
    AutostartFailed,
    Preview,
    Registered,
    call,
    line_differences,
)
from so8t import durable

SUFFIX = ".plist"


def render(entry: Entry) -> bytes:
    """The agent: started at logon, and again 60 s after it failed; the Mac does not fall asleep meanwhile."""
    log = str(entry.home / "logs" / "autostart.log")
    agent: dict[str, Any] = {
        "Label": entry.name,
        "ProgramArguments": ["/usr/bin/caffeinate", "-i", *entry.command],
        "WorkingDirectory": str(entry.project),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 60,
        # Seconds from SIGTERM to SIGKILL; launchd's own 20 are short for emergency checkpoints.
        "ExitTimeOut": 120,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(agent)


def agents_folder() -> Path:
    """Where launchd looks for the user's agents."""
    return Path.home() / "Library" / "LaunchAgents"


class Launchd:
    """launchd's domain of the logged-on user."""

    def __init__(self) -> None:
        # Windows has no user number; there only a dry run gets this far.
        self.domain = f"gui/{os.getuid() if hasattr(os, 'getuid') else '$UID'}"

    def preview(self, entry: Entry, action: str) -> Preview:
        """What would be written and run."""
        path = agents_folder() / (entry.name + SUFFIX)
        commands = {
            "install": (f"launchctl bootstrap {self.domain} {path}",),
            "remove": (f"launchctl bootout {self.domain}/{entry.name}", f"rm {path}"),
        }[action]
        return Preview(str(path), render(entry).decode("utf-8"), "UTF-8", commands)

    def install(self, entry: Entry) -> None:
        """Write the agent and load it; one of the same name is unloaded first, which stops it."""
        path = agents_folder() / (entry.name + SUFFIX)
        durable.make_folder(entry.home / "logs")
        self._unload(entry.name)
        durable.write_bytes(path, render(entry))
        done = call(["launchctl", "bootstrap", self.domain, str(path)])
        if done.code != 0:
            path.unlink()
            raise AutostartFailed(f"launchctl bootstrap failed: {done.words()}")

    def find(self, home: Path) -> list[Registered]:
        """Agents of ours that start this home."""
        found = []
        for path in sorted(agents_folder().glob(f"{PREFIX[:4]}*{SUFFIX}"), key=lambda p: p.stem != name_of(home)):
            try:
                agent = plistlib.loads(path.read_bytes())
            except plistlib.InvalidFileException:
                agent = {}
            command = tuple(str(word) for word in agent.get("ProgramArguments", ()))
            if path.stem == name_of(home) or read_command(command).home == str(home):
                found.append(self._registered(path, agent, command))
        return found

    def _registered(self, path: Path, agent: dict[str, Any], command: tuple[str, ...]) -> Registered:
        loaded = call(["launchctl", "print", f"{self.domain}/{path.stem}"]).code == 0
        disabled = call(["launchctl", "print-disabled", self.domain]).out.decode("utf-8", "replace")
        faults = [] if agent else [f"{path} is no property list"]
        if not loaded:
            faults.append("launchd has not loaded it")
        faults += [
            "it is switched off among the login items"
            for line in disabled.splitlines()
            if f'"{path.stem}"' in line and line.rstrip().endswith(("true", "disabled"))
        ]
        return Registered(
            path.stem, str(path), path.read_text(encoding="utf-8", errors="replace"), command, read_command(command),
            str(agent.get("WorkingDirectory", "")), "loaded" if loaded else "not loaded", tuple(faults),
        )  # fmt: skip

    def remove(self, name: str, *, stop: bool) -> None:
        """Delete the agent; `stop` unloads it too, which ends a running `so8t up`, else launchd forgets it at logout."""
        if stop:
            self._unload(name)
        (agents_folder() / (name + SUFFIX)).unlink(missing_ok=True)

    def _unload(self, name: str) -> None:
        """Unload and wait for the end; without the wait the next bootstrap meets the old agent."""
        if call(["launchctl", "bootout", f"{self.domain}/{name}"]).code != 0:
            return
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while call(["launchctl", "print", f"{self.domain}/{name}"]).code == 0:
            if time.monotonic() > deadline:
                raise AutostartFailed(f"launchd still holds {name} after {CALL_TIMEOUT_S} s")
            time.sleep(0.5)

    def differences(self, entry: Entry, found: Registered) -> list[str]:
        """Line by line."""
        return line_differences(render(entry).decode("utf-8"), found.text)

    def notes(self, entry: Entry) -> list[str]:
        """How to read and keep it."""
        return [
            "It is loaded: `so8t up` starts now, and at every logon.",
            f"Its output: {entry.home / 'logs' / 'autostart.log'}",
            "After a power cut: start up automatically after a power failure, and log in automatically (System Settings).",
        ]
