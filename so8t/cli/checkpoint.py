"""`so8t checkpoint list|verify`: what a training could go on from."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from so8t.cli import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=("list", "verify"), help="list: names and sizes; verify: hash every byte")
    parser.add_argument("--json", action="store_true", help="one JSON list")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Exit 1 where a checkpoint does not verify; nothing is changed."""
    from so8t.config import load_config
    from so8t.session import is_alive, sessions

    home = load_config(options.config, options.overrides, options.home).home()
    rows: list[dict[str, Any]] = []
    for session in sessions(home):
        state = "running" if is_alive(session) else session.status.replace("running", "interrupted")
        for folder in sorted((home / "sessions" / session.session_id / "checkpoints").glob("*-*"), key=_newest_last):
            row: dict[str, Any] = {
                "session": session.session_id,
                "state": state,
                "checkpoint": folder.name,
                "size_bytes": _size(folder),
            }
            rows.append({**row, **_verdict(folder, options.action)})
    if options.json:
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
    else:
        for row in rows:
            sys.stdout.write(
                f"{row['session']}  {row['state']:<11}  {row['checkpoint']:<24} {row['size_bytes'] / 1e6:8.1f} MB  {row['verdict']}\n"
            )
        sys.stdout.write(f"{len(rows)} checkpoints under {home / 'sessions'}\n")
    return 1 if any(row["verdict"].startswith("DAMAGED") for row in rows) else 0


def _newest_last(folder: Path) -> float:
    return folder.stat().st_mtime


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _verdict(folder: Path, action: str) -> dict[str, str]:
    if ".damaged-" in folder.name:
        return {"verdict": "DAMAGED, set aside earlier"}
    if action == "list":
        return {"verdict": "not checked (so8t checkpoint verify)"}
    from so8t.train.checkpoint import verify

    problem = verify(folder)
    return {"verdict": f"DAMAGED {problem}" if problem else "verified, every byte hashed"}
