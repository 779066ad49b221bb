"""`so8t status --watch`: the same again and again, on a terminal in place, elsewhere a line where something changed."""

import locale
import sys
import time
from typing import TYPE_CHECKING

from so8t.cli import raise_on_signals
from so8t.errors import Interrupted
from so8t.overview.gather import Overview, gather
from so8t.overview.screen import is_plain, plain_line, screen
from so8t.overview.training import Checked

if TYPE_CHECKING:
    from so8t.config import Config


def watch(config: "Config", every_s: float) -> int:
    """Until Ctrl+C, or until a run that was seen to run has ended; changes nothing."""
    raise_on_signals()
    looks = _Looks(config)
    try:
        if sys.stdout.isatty():
            _in_place(looks, every_s)
        else:
            _lines(looks, every_s)
    except Interrupted:
        return 0  # that is how one leaves it
    return 0


class _Looks:
    """One look after another, and whether there is anything to wait for."""

    def __init__(self, config: "Config") -> None:
        self._config, self._checked, self._worked = config, Checked(), False

    def look(self) -> tuple[Overview, bool]:
        """What there is to see, and whether this was the last look."""
        seen = gather(self._config, self._checked)
        works = any(run["state"] == "running" for run in seen.runs)
        ended = self._worked and not works
        self._worked = self._worked or works
        return seen, ended


def _lines(looks: _Looks, every_s: float) -> None:
    shown, ended = "", False
    while not ended:
        seen, ended = looks.look()
        line = plain_line(seen)
        if line != shown:
            sys.stdout.write(f"{seen.at:%H:%M:%S} {line}\n")
            sys.stdout.flush()
        shown = line
        if not ended:
            time.sleep(every_s)


def _in_place(looks: _Looks, every_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    plain = is_plain(console, locale.getencoding())
    seen, ended = looks.look()
    try:
        # The other screen: what stood on the terminal is there again afterwards.
        with Live(screen(seen, console, plain=plain), console=console, screen=True, auto_refresh=False) as shown:
            while not ended:
                time.sleep(every_s)
                seen, ended = looks.look()
                shown.update(screen(seen, console, plain=plain), refresh=True)
    finally:
        console.print(screen(seen, console, plain=plain))
