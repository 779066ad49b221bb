"""`so8t autostart`: register `so8t up` for the next logon, say what is registered, remove it."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from so8t.cli import DEFAULT_CONFIG, add_config_arguments

if TYPE_CHECKING:
    from deployments.autostart.entry import Entry
    from deployments.autostart.manager import Manager, Registered
    from so8t.config import Config
    from so8t.session import Session

# What a terminal may set and a run would miss; an entry carries no environment, since that is where secrets are.
NOT_CARRIED = (
    "HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE",
)  # fmt: skip
PLATFORMS = {"win32": "windows", "linux": "linux", "darwin": "macos"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=("install", "status", "remove"), help="what to do")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="change nothing: the file that would be registered on standard output, the commands on standard error",
    )  # fmt: skip
    parser.add_argument(
        "--platform", choices=sorted(PLATFORMS.values()), help="default: this one; another one with --dry-run only"
    )
    parser.add_argument("--network", action="store_true", help="Windows: start only where a network is up")
    add_config_arguments(parser)
    # Without --config, `status` and `remove` mean whatever config is registered.
    parser.set_defaults(config=None)


def main(options: argparse.Namespace) -> int:
    """Exit 0 where done, and for `status` where the entry is registered and right; else 1."""
    from so8t.errors import UserError

    here = PLATFORMS.get(sys.platform, sys.platform)
    platform = options.platform or here
    if options.dry_run and options.action == "status":
        raise UserError("--dry-run with status", "install or remove", "leave it out: status changes nothing")
    if platform != here and not options.dry_run:
        raise UserError(f"--platform {platform} on {here}", "this platform", "add --dry-run to see what it would be")
    if options.network and platform != "windows":
        raise UserError(
            "--network", "Windows: only its Task Scheduler can ask for one", "leave it out: the steps that need a "
            "network wait for it",
        )  # fmt: skip
    manager, entry = _manager(platform), _entry(options)
    if options.dry_run:
        return _show(manager, entry, options.action)
    actions: dict[str, Callable[[Manager, Entry], int]] = {"install": _install, "remove": _remove}
    if options.action in actions:
        return actions[options.action](manager, entry)
    return _status(manager, entry, given=options.config is not None or bool(options.overrides))


def _manager(platform: str) -> "Manager":
    from so8t.errors import UserError

    if platform == "windows":
        from deployments.autostart.windows import TaskScheduler

        return TaskScheduler()
    if platform == "linux":
        from deployments.autostart.linux import Systemd

        return Systemd()
    if platform == "macos":
        from deployments.autostart.macos import Launchd

        return Launchd()
    raise UserError(f"the platform {platform}", ", ".join(sorted(PLATFORMS.values())))


def _entry(options: argparse.Namespace) -> "Entry":
    from deployments.autostart.entry import Entry
    from so8t.config import load_config

    config = options.config or DEFAULT_CONFIG
    if options.home and options.action != "install":
        # A broken config must not keep anybody from seeing or removing the entry.
        home = options.home.expanduser().absolute()
    else:
        home = load_config(config, options.overrides, options.home).home()
    return Entry(home, config.absolute(), tuple(options.overrides), options.network)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _show(manager: "Manager", entry: "Entry", action: str) -> int:
    seen = manager.preview(entry, action)
    if action == "install":
        sys.stdout.write(seen.text)
        sys.stderr.write(f"so8t: nothing was changed. Above: {seen.file}, as {seen.note}\n")
    else:
        sys.stderr.write("so8t: nothing was changed\n")
    for command in seen.commands:
        sys.stderr.write(f"so8t: would run: {command}\n")
    return 0


def _install(manager: "Manager", entry: "Entry") -> int:
    from deployments.autostart.manager import AutostartFailed

    before = manager.find(entry.home)
    changes = [line for old in before if old.name.startswith(entry.name) for line in manager.differences(entry, old)]
    manager.install(entry)
    for old in before:
        if not old.name.startswith(entry.name):
            manager.remove(old.name, stop=False)
            _say(f"removed      {old.name}, an older entry for this home")
    found = manager.find(entry.home)
    # An exit code of 0 proves nothing: what is registered is read back.
    faults = _faults(manager, entry, found)
    if faults:
        raise AutostartFailed("what is registered is not what was meant:\n  - " + "\n  - ".join(faults))
    same = any(old.name.startswith(entry.name) for old in before) and not changes
    word = "unchanged" if same else "replaced" if before else "registered"
    _say(f"{word:<12} {found[0].name}   ({found[0].place}); read back and equal")
    for line in changes:
        _say(f"  before     {line}")
    _describe(found[0])
    for line in manager.notes(entry):
        _say(line)
    here = [name for name in NOT_CARRIED if os.environ.get(name)]
    if here:
        _say(f"Set in this terminal, and not carried along: {', '.join(here)}. It gets what your logon sets.")
    _say("See it with `so8t autostart status`, undo it with `so8t autostart remove`.")
    return 0


def _describe(found: "Registered") -> None:
    command = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    _say(f"starts       {command(found.command)}")
    _say(f"in           {found.folder}")
    _say(f"now          {found.state}")


def _faults(manager: "Manager", entry: "Entry", found: list["Registered"]) -> list[str]:
    """Why what is registered would not start this entry; empty where all was checked and is right."""
    if not found:
        return [f"{entry.name} is not registered"]
    first, *others = found
    faults = [*first.faults, *missing_files(first)]
    if not first.name.startswith(entry.name):
        faults.append(f"the entry for this home would be called {entry.name}; this one is of another version")
    faults += manager.differences(entry, first)
    return faults + [f"{other.name} also starts this home" for other in others]


def missing_files(found: "Registered") -> list[str]:
    """Interpreter, config and working directory that are registered and not there."""
    paths = {"interpreter": found.started.python, "config": found.started.config, "working directory": found.folder}
    # "?" is in no Windows path: there it is a character that the console's code page lost.
    return [
        f"the {what} {path or '(none)'} is not there"
        for what, path in paths.items()
        if not ("?" in path and sys.platform == "win32") and not (path and Path(path).exists())
    ]


def _status(manager: "Manager", entry: "Entry", *, given: bool) -> int:
    from dataclasses import replace

    found = manager.find(entry.home)
    if not found:
        _say(f"not registered: {entry.name} for the home {entry.home}")
        return 1
    first = found[0]
    if not given and first.started.config:
        entry = replace(entry, config=Path(first.started.config), overrides=first.started.overrides)
    if "<RunOnlyIfNetworkAvailable>true<" in first.text:
        entry = replace(entry, network=True)
    faults = _faults(manager, entry, found)
    _say(f"{'registered' if not faults else 'different':<12} {first.name}   ({first.place})")
    _describe(first)
    for fault in faults:
        _say(f"fault        {fault}")
    return 1 if faults else 0


def _remove(manager: "Manager", entry: "Entry") -> int:
    names = _remove_all(manager, entry.home, stop=True)
    if not names:
        _say(f"not registered: {entry.name} for the home {entry.home}; nothing to remove")
    for name in names:
        _say(f"removed      {name}; looked again and it is gone")
    return 0


def _remove_all(manager: "Manager", home: Path, *, stop: bool) -> list[str]:
    from deployments.autostart.manager import AutostartFailed

    names = [found.name for found in manager.find(home)]
    for name in names:
        manager.remove(name, stop=stop)
    left = [found.name for found in manager.find(home)]
    if left:
        raise AutostartFailed(f"still registered after removal: {', '.join(left)}")
    return names


def remove(home: Path) -> list[str]:
    """Remove what starts this home at logon, without stopping what runs; the removed entries' names."""
    return _remove_all(_manager(PLATFORMS.get(sys.platform, sys.platform)), home, stop=False)


def retire(config: "Config", supervisor: str) -> list[str]:
    """Remove the entry where the config asks for it: a run under this supervisor has published, and none is open.

    A run without a sign of life for `cleanup.expiry_days` is not open: it was cancelled or given up. Gives lines to
    show. A scheduler that refuses is told of, not raised: what completed stays completed.
    """
    from so8t.errors import So8tError
    from so8t.session import sessions

    if not config.cleanup.remove_autostart:
        return []
    runs = [run for run in sessions(config.home()) if run.kind == "run"]
    oldest = (datetime.now(UTC) - timedelta(days=config.cleanup.expiry_days)).isoformat()
    is_open = any(run.status in {"running", "interrupted"} and run.heartbeat.time > oldest for run in runs)
    ended = [run for run in runs if run.completed and run.supervisor == supervisor]
    if is_open or not any(_has_published(config.home(), run) for run in ended):
        return []
    try:
        return [f"removed {name}: every run is finished" for name in remove(config.home())]
    except So8tError as error:
        return [f"not removed: {error}"]


def _has_published(home: Path, run: "Session") -> bool:
    """Whether the run ended in an upload of which every file was verified where it went."""
    from so8t.artifacts import Store

    names = (name.partition("/") for name in run.artifacts)
    uploads = [Store(home).peek(step, key) for step, _, key in names if step == "upload"]
    facts = [upload.manifest.facts for upload in uploads if upload is not None]
    return any(fact.get("files") and fact.get("verified") == fact["files"] for fact in facts)


def inspect(home: Path) -> tuple["Registered | None", list[str]]:
    """The entry that starts this home, and what is wrong with it; it is not compared with any config."""
    found = _manager(PLATFORMS.get(sys.platform, sys.platform)).find(home)
    if not found:
        return None, []
    others = [f"{other.name} also starts this home" for other in found[1:]]
    return found[0], [*found[0].faults, *missing_files(found[0]), *others]
