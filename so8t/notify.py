"""Tells the user what needs him: a sound, a line in `logs/notices.jsonl`, and any Apprise address he named.

Addresses hold passwords, so they come from the environment alone: SO8T_NOTIFY_URLS, separated by spaces.
A channel that fails never fails what it reports about; that it failed is written down too.
"""

import json
import os
import sys
import threading
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Literal

from so8t import durable, sound
from so8t.config import Notify
from so8t.faults import without_password
from so8t.session import now

URLS_VARIABLE = "SO8T_NOTIFY_URLS"
REMOTE_TIMEOUT_S = 20.0
Kind = Literal["completed", "failed", "resume", "monitor"]


@dataclass(frozen=True)
class Outcome:
    """What became of a notice on one channel; `problem` is empty where it went out."""

    channel: str
    how: str = ""
    problem: str = ""


def notify(home: Path, kind: Kind, title: str, text: str, settings: Notify) -> list[Outcome]:
    """Send one notice through every channel that the settings allow now; gives what became of it on each.

    No address in it keeps its password. Returns after `REMOTE_TIMEOUT_S` and the length of a sound at the latest.
    """
    title, text = without_password(title), without_password(text)
    _write(home, title, text)
    if kind not in settings.on:
        return []
    quiet = is_quiet(settings.quiet_hours, datetime.now().time())
    outcomes = [_sound(home, kind)] if settings.sound and not quiet else []
    # What failed may wait for him; that all is well can wait for the morning.
    if not quiet or kind != "completed":
        outcomes += _remote(home, title, text)
    for outcome in outcomes:
        if outcome.problem and outcome.channel != "sound":
            _write(home, "notification failed", f"{outcome.channel} {outcome.problem}")
    return outcomes


def is_quiet(hours: str, at: time) -> bool:
    """Whether a time of day lies in `22:00-07:00` or the like; never where no hours are given."""
    if not hours:
        return False
    begin, end = (time.fromisoformat(text) for text in hours.split("-"))
    return begin <= at < end if begin <= end else at >= begin or at < end


def _sound(home: Path, kind: Kind) -> Outcome:
    if player := sound.play(home, kind):
        return Outcome("sound", player)
    if sys.stderr.isatty():
        sys.stderr.write("\a")
        sys.stderr.flush()
        return Outcome("sound", "the terminal's bell")
    return Outcome("sound", problem=f"found no player that works ({', '.join(name for name, *_ in sound.PLAYERS)})")


def _remote(home: Path, title: str, text: str) -> list[Outcome]:
    """All addresses at once, in threads that nobody waits for longer than the limit."""
    urls = os.environ.get(URLS_VARIABLE, "").split()
    # The address itself may hold a password: it is named by its place in the list.
    names = [f"address {number} of {URLS_VARIABLE}" for number in range(1, len(urls) + 1)]
    problems = dict.fromkeys(names, f"did not answer within {REMOTE_TIMEOUT_S:g} s")
    threads = [
        threading.Thread(target=_send, args=(url, title, text, name, problems), daemon=True)
        for name, url in zip(names, urls, strict=True)
    ]
    for thread in threads:
        thread.start()
    deadline = datetime.now().timestamp() + REMOTE_TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, deadline - datetime.now().timestamp()))
    return [Outcome(name, "" if problems[name] else "taken", problems[name]) for name in names]


def _send(url: str, title: str, text: str, name: str, problems: dict[str, str]) -> None:
    import apprise

    channel = apprise.Apprise()
    if not channel.add(url):
        problems[name] = "is not an Apprise address"
    else:
        problems[name] = "" if channel.notify(title=title, body=text or title) else "did not take it"


def _write(home: Path, title: str, text: str) -> None:
    path = home / "logs" / "notices.jsonl"
    line = json.dumps({"time": now(), "title": title, "text": text}, ensure_ascii=False) + "\n"
    try:
        durable.make_folder(path.parent)
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line)
    except OSError as error:
        # A full disk may be the very thing to tell of; the other channels still can.
        sys.stderr.write(f"so8t: {title}: {text}\n  ({path} took no note of it: {error.strerror})\n")
