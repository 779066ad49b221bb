"""`so8t checkpoint list|verify|save`: what a training could go on from, and one more of them now."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from so8t.cli import add_config_arguments

POLL_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action",
        choices=("list", "verify", "save"),
        help="list: names and sizes; verify: hash every byte; save: ask a running training for one now, and wait",
    )
    parser.add_argument("--tag", default="", help="with save: a word; a tagged checkpoint is not pruned")
    parser.add_argument("--json", action="store_true", help="one JSON list")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Exit 1 where a checkpoint does not verify, or where no training runs that could save one."""
    from so8t.config import load_config
    from so8t.session import is_alive, sessions
    from so8t.sizes import size_of

    home = load_config(options.config, options.overrides, options.home).home()
    if options.action == "save":
        return _save(home, options.tag)
    rows: list[dict[str, Any]] = []
    for session in sessions(home):
        state = "running" if is_alive(session) else session.status.replace("running", "interrupted")
        for folder in sorted((home / "sessions" / session.session_id / "checkpoints").glob("*-*"), key=_newest_last):
            row: dict[str, Any] = {
                "session": session.session_id,
                "state": state,
                "checkpoint": folder.name,
                "size_bytes": size_of(folder),
            }
            row |= _verdict(folder, options.action)
            if folder.exists():  # else the training has pruned it meanwhile
                rows.append(row)
    if options.json:
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
    else:
        for row in rows:
            sys.stdout.write(
                f"{row['session']}  {row['state']:<11}  {row['checkpoint']:<24} {row['size_bytes'] / 1e6:8.1f} MB  {row['verdict']}"
                + (f"  tag {row['tag']}\n" if "tag" in row else "\n")
            )
        sys.stdout.write(f"{len(rows)} checkpoints under {home / 'sessions'}\n")
    return 1 if any(row["verdict"].startswith("DAMAGED") for row in rows) else 0


def _save(home: Path, tag: str) -> int:
    """Ask the running training with the newest progress; a step may take its time, so only its end is a failure."""
    from so8t.loop import request
    from so8t.session import is_alive, sessions
    from so8t.step import trainings

    running = [session for session in sessions(home) if session.kind in trainings() and is_alive(session)]
    if not running:
        sys.stderr.write(f"so8t: no training runs under {home}; nothing was saved\n")
        return 1
    folder = home / "sessions" / running[0].session_id
    asked = request.ask(folder, tag)
    try:
        while (found := request.answer_to(folder, asked)) is None:
            session = next((one for one in sessions(home) if one.session_id == running[0].session_id), None)
            if session is None or not is_alive(session):
                sys.stderr.write(
                    f"so8t: {running[0].session_id} ended before its next step; see so8t checkpoint list\n"
                )
                return 1
            time.sleep(POLL_S)
    finally:
        request.withdraw(folder)
    sys.stdout.write(f"saved {found}\n")
    return 0


def _newest_last(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _verdict(folder: Path, action: str) -> dict[str, str]:
    from so8t.loop.saved import tag_of, verify

    if ".damaged-" in folder.name:
        return {"verdict": "DAMAGED, set aside earlier"}
    if ".passed-over-" in folder.name:
        return {"verdict": "passed over by --resume"}
    tag = tag_of(folder)
    tagged = {"tag": tag} if tag else {}
    if action == "list":
        return {"verdict": "not checked (so8t checkpoint verify)", **tagged}
    problem = verify(folder)
    return {"verdict": f"DAMAGED {problem}" if problem else "verified, every byte hashed", **tagged}
