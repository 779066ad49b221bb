"""Power cuts, made fast: the disk of a running writer is cloned as it is, without what the kernel still holds.

The writer works in a file system (`live`) whose device is an image file on a file system that can clone
files. It prints a line for each item after the call that promises durability has returned. At a random
moment the rig stops the writer, reads what it has acknowledged, clones the image (FICLONE, atomic) and lets
it run on; the clone is mounted, which replays the journal as the next boot would, and the next start of the
program is tried on it. Pages that were never written to the device are not in the clone.

Not modelled: a disk that loses its own cache against the flushes it has confirmed.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FICLONE = 0x40049409
OUTER_BYTES = 4 << 30
START_TIMEOUT_S, ITEM_TIMEOUT_S = 120.0, 60.0


@dataclass(frozen=True)
class Kind:
    """A file system under test: how it is made and mounted."""

    make: tuple[str, ...]
    mount: str = "loop"
    image_bytes: int = 320 << 20


_EXT4 = ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0")
KINDS = {
    "ext4": Kind(_EXT4),
    "ext4-commit1": Kind(_EXT4, mount="loop,commit=1"),
    "xfs": Kind(("mkfs.xfs", "-q", "-f"), mount="loop,nouuid"),
    "btrfs": Kind(("mkfs.btrfs", "-q", "-f")),
}
_OUTER = {
    "btrfs": Kind(("mkfs.btrfs", "-q", "-f")),
    "xfs": Kind(("mkfs.xfs", "-q", "-f", "-m", "reflink=1")),
}


@dataclass
class Tally:
    """What the next start found after each cut."""

    cuts: int = 0
    lost: int = 0
    failed: int = 0
    acknowledged: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, outcome: str) -> None:
        """Count "", or a word for what is wrong: `lost: ...` or `failed: ...`."""
        self.cuts += 1
        self.lost += outcome.startswith("lost")
        self.failed += outcome.startswith("failed")
        if outcome:
            self.notes.append(f"cut {self.cuts}: {outcome}")


class Disk:
    """A mounted file system that can be cloned while it is written to. A context manager; needs root."""

    def __init__(self, place: Path, kind: str) -> None:
        self.kind, self.place = KINDS[kind], place
        self.live, self.outer, self.cut = (place / name for name in ("live", "outer", "cut"))
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "Disk":
        with contextlib.ExitStack() as undo:
            for folder in (self.live, self.outer, self.cut):
                folder.mkdir(parents=True)
            # A file system does not take a clone of itself for another disk.
            outer = next(n for n in _OUTER if shutil.which(f"mkfs.{n}") and n != self.kind.make[0].partition(".")[2])
            _image(self.place / "outer.img", OUTER_BYTES, _OUTER[outer])
            undo.enter_context(_mounted(self.place / "outer.img", self.outer, "loop"))
            _image(self.outer / "live.img", self.kind.image_bytes, self.kind)
            undo.enter_context(_mounted(self.outer / "live.img", self.live, self.kind.mount))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def clone(self) -> None:
        """What the power leaves behind, at this very moment."""
        import fcntl

        with (self.outer / "live.img").open("rb") as source, (self.outer / "cut.img").open("wb") as target:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())

    @contextmanager
    def booted(self) -> Iterator[Path]:
        """The clone as the next boot mounts it."""
        image = self.outer / "cut.img"
        with _mounted(image, self.cut, self.kind.mount):
            yield self.cut
        image.unlink()


def _image(path: Path, size_bytes: int, kind: Kind) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run([*kind.make, str(path)], check=True, capture_output=True)


@contextmanager
def _mounted(image: Path, place: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-o", options, str(image), str(place)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)


@cache
def why_not() -> str:
    """Why no power can be cut here; "" where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "power cuts need root on Linux"
    if not shutil.which("mkfs.ext4") or not any(shutil.which(f"mkfs.{name}") for name in _OUTER):
        return "power cuts need mkfs.ext4, and mkfs.btrfs or mkfs.xfs"
    with tempfile.TemporaryDirectory() as place:
        try:
            with Disk(Path(place) / "probe", "ext4") as disk:
                disk.clone()
                with disk.booted():
                    return ""
        except (OSError, subprocess.CalledProcessError) as error:
            return f"power cuts need loop devices and file clones: {getattr(error, 'stderr', error)!r}"


class Writer:
    """A process that saves one item after the other and acknowledges each with a line `<number> <fsyncs left out>`."""

    def __init__(self, command: list[str]) -> None:
        self.acknowledged, self.skipped, self._rest = -1, 0, b""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)

    def __enter__(self) -> "Writer":
        self.wait(1, START_TIMEOUT_S)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.send_signal(signal.SIGCONT)
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._pipe, 1 << 16):
                *lines, self._rest = (self._rest + data).split(b"\n")
                if lines:
                    self.acknowledged, self.skipped = (int(word) for word in lines[-1].split())

    def wait(self, items: int, timeout_s: float = ITEM_TIMEOUT_S) -> None:
        """Until `items` more are acknowledged."""
        self._drain()
        wanted, deadline = self.acknowledged + items, time.monotonic() + timeout_s
        while self.acknowledged < wanted:
            assert self._process.poll() is None, f"the writer ended with {self._process.returncode}"
            assert time.monotonic() < deadline, "the writer saves nothing"
            time.sleep(0.001)
            self._drain()

    @contextmanager
    def stopped(self) -> Iterator[int]:
        """Gives the newest number that was acknowledged before the cut."""
        self._process.send_signal(signal.SIGSTOP)
        self._drain()
        try:
            yield self.acknowledged
        finally:
            self._process.send_signal(signal.SIGCONT)


Check = Callable[[Path, int], str]


def campaign(
    disk: Disk,
    command: list[str],
    check: Check,
    cuts: int,
    seed: int,
    until: Callable[[Tally], bool] | None = None,
    item_s: float = 0.0,
) -> Tally:
    """Cut the power `cuts` times, or `until`. `check(folder, acknowledged)` is the next start on what was left.

    The cuts fall anywhere in two items after one was acknowledged; `item_s` is measured where it is not given.
    """
    rng, tally = random.Random(seed), Tally()  # noqa: S311 - a repeatable campaign
    with Writer(command) as writer:
        if not item_s:
            started = time.monotonic()
            writer.wait(5)
            item_s = (time.monotonic() - started) / 5
        for _ in range(cuts):
            writer.wait(1)
            time.sleep(rng.uniform(0, 2 * item_s))
            with writer.stopped() as acknowledged:
                disk.clone()
            with disk.booted() as folder:
                tally.add(check(folder, acknowledged))
            if until and until(tally):
                break
        tally.acknowledged, tally.skipped = writer.acknowledged + 1, writer.skipped
    return tally
