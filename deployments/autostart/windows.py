"""Windows: a Task Scheduler task of the installing user, without administrator rights."""

import csv
import hashlib
import io
import os
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from pathlib import Path

from deployments.autostart.entry import PREFIX, Entry, name_of, read_command
from deployments.autostart.manager import AutostartFailed, Called, Preview, Registered, call
from deployments.autostart.task_rules import (
    COMMAND_LINE_CHARS_MAX,
    EXPANDED,
    NAMESPACE,
    PATH_CHARS_MAX,
    VERSION,
    check_definition,
    check_task,
    parse,
    same_account,
    split_command,
    values_of,
)
from so8t import durable
from so8t.errors import UserError

PRINCIPAL = "User"
# In the past, so that the watchdog runs from the first logon on, and fixed, so that equal entries are equal bytes.
WATCHDOG_START = "2000-01-01T00:00:00"
WATCHDOG_INTERVAL = "PT15M"
SID = re.compile(rb"S-1-\d+(?:-\d+)+")


def render(entry: Entry, account: str) -> bytes:
    """The file for `schtasks /create /xml`; UserError where Task Scheduler would refuse or change a path."""
    command, *arguments = entry.command
    for text, what in ((command, "the interpreter's path"), (str(entry.project), "the project's path")):
        if len(text) > PATH_CHARS_MAX:
            raise UserError(
                f"{what} has {len(text)} characters: {text}",
                f"1 to {PATH_CHARS_MAX}: Task Scheduler takes no more",
                "move the project to a shorter path",
            )
    for text in (*entry.command, str(entry.project)):
        if EXPANDED.search(text):
            raise UserError(f"{text!r} holds %NAME% or $(", "a text that Task Scheduler does not expand", "rename it")
    length = len(subprocess.list2cmdline(entry.command))
    if length > COMMAND_LINE_CHARS_MAX:
        raise UserError(
            f"the command line has {length} characters", f"at most {COMMAND_LINE_CHARS_MAX}",
            "put the overrides into a config file",
        )  # fmt: skip
    root = ET.Element("Task", {"version": VERSION, "xmlns": NAMESPACE})
    _fill(root, _values(entry, account, command, subprocess.list2cmdline(arguments)))
    ET.indent(root)
    text = '<?xml version="1.0" encoding="UTF-16"?>\n' + ET.tostring(root, encoding="unicode") + "\n"
    data = b"\xff\xfe" + text.encode("utf-16-le")
    faults = check_task(data)
    if faults:
        raise UserError("the task breaks our own rules:\n  - " + "\n  - ".join(faults), "a task without faults")
    return data


def _values(entry: Entry, account: str, command: str, arguments: str) -> dict[str, str]:
    """Every value by its path, in the order of the file."""
    # ASCII that stands for all of the entry: what comes back has lost other characters.
    digest = hashlib.sha256("\0".join((*entry.command, str(entry.project))).encode("utf-8")).hexdigest()[:16]
    network = "true" if entry.network else "false"
    return {
        "RegistrationInfo/Description": f"SO8T pipeline: goes on at logon. Made by so8t autostart install ({digest}).",
        "Triggers/LogonTrigger/Enabled": "true",
        "Triggers/LogonTrigger/UserId": account,
        "Triggers/TimeTrigger/Enabled": "true",
        "Triggers/TimeTrigger/StartBoundary": WATCHDOG_START,
        "Triggers/TimeTrigger/Repetition/Interval": WATCHDOG_INTERVAL,
        "Triggers/TimeTrigger/Repetition/StopAtDurationEnd": "false",
        f"Principals/Principal@id={PRINCIPAL}/UserId": account,
        f"Principals/Principal@id={PRINCIPAL}/LogonType": "InteractiveToken",
        f"Principals/Principal@id={PRINCIPAL}/RunLevel": "LeastPrivilege",
        "Settings/MultipleInstancesPolicy": "IgnoreNew",
        "Settings/DisallowStartIfOnBatteries": "false",
        "Settings/StopIfGoingOnBatteries": "false",
        "Settings/AllowHardTerminate": "true",
        "Settings/StartWhenAvailable": "true",
        "Settings/RunOnlyIfNetworkAvailable": network,
        "Settings/IdleSettings/StopOnIdleEnd": "false",
        "Settings/IdleSettings/RestartOnIdle": "false",
        "Settings/AllowStartOnDemand": "true",
        "Settings/Enabled": "true",
        "Settings/Hidden": "false",
        "Settings/RunOnlyIfIdle": "false",
        "Settings/WakeToRun": "false",
        "Settings/ExecutionTimeLimit": "PT0S",
        # Normal processor and disk priority; its memory gives way to the foreground's.
        "Settings/Priority": "6",
        "Settings/RestartOnFailure/Interval": "PT5M",
        "Settings/RestartOnFailure/Count": "3",
        f"Actions@Context={PRINCIPAL}/Exec/Command": command,
        f"Actions@Context={PRINCIPAL}/Exec/Arguments": arguments,
        f"Actions@Context={PRINCIPAL}/Exec/WorkingDirectory": str(entry.project),
    }


def _fill(root: ET.Element, values: dict[str, str]) -> None:
    for path, value in values.items():
        place = root
        for part in path.split("/"):
            name, _, attribute = part.partition("@")
            child = place.find(name)
            if child is None:
                child = ET.SubElement(place, name, dict([attribute.split("=")]) if attribute else {})
            place = child
        place.text = value


def system_program(name: str) -> str:
    """A program of Windows by its full path: one of the same name in the project is never taken."""
    return str(Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / name)


class TaskScheduler:
    """Task Scheduler through `schtasks`, whose words are localised: only XML and names are read."""

    def __init__(
        self,
        schtasks: Sequence[str] = (),
        whoami: Sequence[str] = (),
        encoding: str = "oem",
        account: str = "",
    ) -> None:
        self._schtasks = list(schtasks) or [system_program("schtasks.exe")]
        self._whoami = list(whoami) or [system_program("whoami.exe")]
        self._encoding = encoding
        self.account = account or installing_user()

    def preview(self, entry: Entry, action: str) -> Preview:
        """What would be handed over and run."""
        commands = {
            "install": (f"schtasks /create /xml task.xml /tn {entry.name} /f",),
            "remove": (f"schtasks /delete /tn {entry.name} /f",),
        }[action]
        text = render(entry, self.account).decode("utf-16")
        return Preview("task.xml", text, "UTF-16 with a byte order mark", commands)

    def install(self, entry: Entry) -> None:
        """Check the definition by our rules and register it; /f replaces one of the same name."""
        data = render(entry, self.account)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "task.xml"
            durable.write_bytes(path, data)
            self._run("/create", "/xml", str(path), "/tn", entry.name, "/f")

    def find(self, home: Path) -> list[Registered]:
        """Tasks of ours that start this home, as Task Scheduler gives them back."""
        aliases = self._aliases()
        own = name_of(home)
        found = []
        for name in sorted(self._names(), key=lambda name: name != own):
            task = self._read(name, aliases)
            if name == own or (task.started.home and lossy_equal(str(home), task.started.home)):
                found.append(task)
        return found

    def remove(self, name: str, *, stop: bool = False) -> None:
        """Delete the task; a running `so8t up` goes on and is not started again."""
        self._run("/delete", "/tn", name, "/f")

    def differences(self, entry: Entry, found: Registered) -> list[str]:
        """Value by value, with Task Scheduler's defaults for what it leaves out."""
        try:
            have = values_of(parse(found.text))
        except ValueError as error:
            return [str(error)]
        want = values_of(parse(render(entry, self.account).decode("utf-16")))
        if "?" in "".join(entry.command):
            # The config's name was read back with losses: the digest of the true one is not known.
            want.pop("RegistrationInfo/Description")
        aliases = self._aliases()
        return [
            f"{path}: {have.get(path, 'absent')}; wanted {wanted}"
            for path, wanted in want.items()
            if not lossy_equal(wanted, have.get(path, ""))
            and not (path.endswith("UserId") and same_account(wanted, have.get(path, ""), aliases))
        ]

    def notes(self, entry: Entry) -> list[str]:
        """How to start, see and keep it."""
        return [
            f"It starts when {self.account} logs on, and within 15 minutes where it has stopped;"
            f" now: schtasks /run /tn {entry.name}",
            f"See it: schtasks /query /tn {entry.name} /v /fo LIST",
            "After a power cut the PC must switch on (BIOS: restore on AC power loss) and log on by itself (auto-logon).",
        ]

    def _aliases(self) -> tuple[str, ...]:
        done = call([*self._whoami, "/user", "/fo", "csv", "/nh"])
        sid = SID.search(done.out)
        if done.code != 0 or sid is None:
            raise AutostartFailed(f"whoami /user failed: {done.words(self._encoding)}")
        return self.account, sid.group().decode("ascii")

    def _names(self) -> list[str]:
        """Our tasks. The list of all is asked for, since a failing query of one may mean anything."""
        rows = csv.reader(io.StringIO(self._text(self._run("/query", "/fo", "csv", "/nh"))))
        names = {row[0].removeprefix("\\") for row in rows if row}
        return sorted(name for name in names if name.lower().startswith(PREFIX[:4]))

    def _read(self, name: str, aliases: Collection[str]) -> Registered:
        text = self._text(self._run("/query", "/tn", name, "/xml"))
        try:
            values = values_of(parse(text))
        except ValueError:
            values = {}
        command = (
            values.get("Actions/Exec/Command", ""),
            *split_command(values.get("Actions/Exec/Arguments", "")),
        )
        return Registered(
            name, "Task Scheduler", text, command, read_command(command),
            values.get("Actions/Exec/WorkingDirectory", ""), "registered", tuple(check_definition(text, aliases)),
        )  # fmt: skip

    def _text(self, done: Called) -> str:
        if done.out.startswith(b"\xff\xfe"):
            return done.out.decode("utf-16", "replace")
        return done.out.decode(self._encoding, "replace").lstrip()

    def _run(self, *arguments: str) -> Called:
        done = call([*self._schtasks, *arguments])
        if done.code != 0:
            raise AutostartFailed(
                f"schtasks {' '.join(arguments)} failed with exit code {done.code}: {done.words(self._encoding)}"
            )
        return done


def installing_user() -> str:
    """DOMAIN\\user of whoever runs this; on other platforms, for a dry run, machine and user."""
    import getpass
    import platform

    domain = os.environ.get("USERDOMAIN") or platform.node()
    return f"{domain}\\{os.environ.get('USERNAME') or getpass.getuser()}"


def lossy_equal(wanted: str, found: str) -> bool:
    """Equality up to what the console's code page loses: `schtasks` prints ? or a similar letter for it."""
    if wanted == found:
        return True
    pattern = "".join(re.escape(char) if char.isascii() else ".{1,2}" for char in wanted)
    return re.fullmatch(pattern, found, re.S) is not None
