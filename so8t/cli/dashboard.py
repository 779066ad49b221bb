"""`so8t dashboard`: a training's numbers live in TensorBoard or trackio, on 127.0.0.1 alone."""

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from so8t.cli import add_config_arguments, raise_on_signals
from so8t.errors import InputError, Interrupted

if TYPE_CHECKING:
    from so8t.loop.trackers import Kind

HOST = "127.0.0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--with", dest="kind", choices=("tensorboard", "trackio"),
        help="whose dashboard (default: the first of machine.trackers that has numbers)",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default 0: a free one)")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl+C; exit 2 where no training has written what it would show."""
    from so8t.config import load_config

    raise_on_signals()
    config = load_config(options.config, options.overrides, options.home)
    folder = config.home() / "progress_logs"
    asked: tuple[Kind, ...] = (options.kind,) if options.kind else config.machine.trackers or ("tensorboard", "trackio")
    kind = next((one for one in asked if (folder / one).is_dir()), None)
    if kind is None:
        raise InputError(
            f"no training has written numbers for {' or '.join(asked)} under {folder}",
            "a training that was started with machine.trackers",
            f"--set machine.trackers=[{asked[0]}] with so8t run, then so8t dashboard while it trains",
        )
    url, close = VIEWERS[kind](folder / kind, options.port)
    sys.stdout.write(f"{kind} of {folder / kind}: {url}\nCtrl+C ends it\n")
    sys.stdout.flush()
    try:
        while True:
            time.sleep(3600)
    except Interrupted:
        return 0
    finally:
        close()


Opened = tuple[str, Callable[[], object]]


def _tensorboard(folder: Path, port: int) -> Opened:
    from so8t.loop.trackers import absent

    try:
        from tensorboard import program
    except ImportError as error:
        raise absent("tensorboard", error) from None
    board = program.TensorBoard()
    # Its own fast reader is a binary that looks for its files with other permissions.
    board.configure(argv=["", "--logdir", str(folder), "--host", HOST, "--port", str(port), "--load_fast", "false"])
    return str(board.launch()), lambda: None


def _trackio(folder: Path, port: int) -> Opened:
    from so8t.loop.trackers import TRACKIO_PROJECT, absent

    # trackio reads it when it is imported.
    os.environ.setdefault("TRACKIO_DIR", str(folder))
    try:
        import trackio
    except ImportError as error:
        raise absent("trackio", error) from None
    # It greets with an address that lets whoever has it write.
    with contextlib.redirect_stdout(io.StringIO()):
        app, url, *_ = trackio.show(
            TRACKIO_PROJECT,
            open_browser=False,
            block_thread=False,
            host=HOST,
            share=False,
            server_port=port or _free_port(),
        )
    return f"{url}?project={TRACKIO_PROJECT}", app.close


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


VIEWERS = {"tensorboard": _tensorboard, "trackio": _trackio}
