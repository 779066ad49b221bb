"""Tells the user what needs him: a bell, a line in `logs/notices.jsonl`, and any Apprise address he named.

Addresses hold passwords, so they come from the environment alone: SO8T_NOTIFY_URLS, separated by spaces.
A channel that fails never fails what it reports about; that it failed is written down too.
"""

import json
import os
import sys
import threading
from pathlib import Path

from so8t import durable
from so8t.session import now

URLS_VARIABLE = "SO8T_NOTIFY_URLS"
REMOTE_TIMEOUT_S = 20.0


def notify(home: Path, title: str, text: str) -> None:
    """Send one notice through every channel; returns after `REMOTE_TIMEOUT_S` at the latest."""
    _write(home, title, text)
    if sys.stderr.isatty():
        sys.stderr.write("\a")
        sys.stderr.flush()
    urls = os.environ.get(URLS_VARIABLE, "").split()
    if urls:
        sender = threading.Thread(target=_send, args=(home, urls, title, text), daemon=True)
        sender.start()
        sender.join(REMOTE_TIMEOUT_S)


def _send(home: Path, urls: list[str], title: str, text: str) -> None:
    import apprise

    for number, url in enumerate(urls, start=1):
        channel = apprise.Apprise()
        # The address itself may hold a password: it is named by its place in the list.
        if not channel.add(url):
            _write(home, "notification failed", f"address {number} of {URLS_VARIABLE} is not an Apprise address")
        elif not channel.notify(title=title, body=text):
            _write(home, "notification failed", f"address {number} of {URLS_VARIABLE} did not take it")


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
