"""This machine's clock: a wrong one breaks TLS, schedules and the age of sessions."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from so8t.preflight.finding import Finding
from so8t.preflight.scene import Scene
from so8t.session import sessions

CALL_TIMEOUT_S = 5.0
DO = "set date, time and zone, and switch on synchronisation (an empty BIOS battery loses them in a power cut)"


def check(scene: Scene, hub_time: datetime | None, synchronised: bool | None) -> Finding:
    """Against the Hub's own time where it answered, else the system's flag; and against what this home has noted."""
    now, skew = datetime.now(UTC), timedelta(seconds=scene.config.preflight.clock_skew_s)
    newest = last_noted(scene)
    if newest is not None and now < newest - skew:
        return Finding(
            "clock",
            "warn",
            f"{_text(now)}, but this home has notes of {_text(newest)}",
            "a clock that only goes forward",
            DO,
        )
    if hub_time is not None:
        apart = abs(now - hub_time).total_seconds()
        if apart > skew.total_seconds():
            found = f"{_text(now)}, the Hub says {_text(hub_time)}"
            return Finding("clock", "warn", found, f"within {skew.total_seconds():g} s", DO)
        return Finding("clock", "ok", f"{_text(now)}, {apart:.0f} s from the Hub's")
    if synchronised is None:
        return Finding(
            "clock", "not looked at", f"{_text(now)}; neither the Hub nor the system says whether that is right"
        )
    if not synchronised:
        return Finding(
            "clock", "warn", f"{_text(now)}, and the system calls it unsynchronised", "a synchronised clock", DO
        )
    return Finding("clock", "ok", f"{_text(now)}, synchronised")


def last_noted(scene: Scene) -> datetime | None:
    """The newest sign of life in any session of the home."""
    times = [session.heartbeat.time for session in sessions(scene.store.home) if session.heartbeat.time]
    try:
        return max((datetime.fromisoformat(time) for time in times), default=None)
    except ValueError:
        return None


def is_synchronised() -> bool | None:
    """systemd's flag; None where nobody keeps one that can be read without rights."""
    if not sys.platform.startswith("linux") or shutil.which("timedatectl") is None:
        return None
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=CALL_TIMEOUT_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return {b"yes": True, b"no": False}.get(done.stdout.strip())


def _text(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
