"""Every durable change of the seven steps, killed before it, in the middle of it and after it.

A point is a moment at one change: a file or folder renamed into place, a folder made, a file or folder removed, a
batch of answers committed. It is named by step, path under the home and moment, so that points are enumerated and
not drawn. A first home is made without a kill and records its points. In the second every process is killed
(SIGKILL, by itself) at the first point where none was killed before, and the same command is given again, until it
ends by itself. So a point costs one process and not a run. The moments:

    before  nothing has happened yet
    torn    the temporary file or the removed folder is cut to half, the batch is inside its transaction
    after   it has happened, and nothing later

Imports take longer than most steps, so a process that has imported everything forks one for each command. Nothing
is fsynced: a killed process loses nothing that the kernel has (power cuts: tests/crash/powercut.py). Checkpoints
are written after the first steps of a phase and at its end and not when it is time, so that both homes meet the same
points.

By hand: python -m tests.crash.every_write FOLDER [STEP ...]; with steps named, only those are killed, and what the two
homes in FOLDER hold of the others is not made again.
"""

import importlib
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from so8t import cli, durable, session, step
from so8t.artifacts import Store
from so8t.cleanup.retention import TRASH
from so8t.config import Config, load_config
from so8t.step import NotReady, Ref, plan, steps
from tests.conftest import TINY
from tests.crash.campaign import Report, Seen, compare, look

ARGUMENTS = [*TINY, "--set", "machine.threads=1", "--set", "machine.progress_interval_s=0.001",
             "--set", "machine.checkpoint_keep=2"]  # fmt: skip
# Written again and again: told apart by the places in the code that write it.
REPEATED = frozenset({"session.json", "removed.json"})
# Steps of each phase after which a checkpoint is written.
SAVED_AT = (1, 2, 3, 4)
# Who is killed when a checkpoint is there goes on behind it. So what follows a checkpoint (its note in the session, the
# removal of an older one) is met only where one is written without a kill: those after these steps share a name.
NAMELESS_AT = (3, 4)
WITH_MODELS = frozenset({"collect.base", "train", "four_class", "bake", "benchmark.cell"})
_nameless: set[int] = set()
COMMAND_S = 300
CODE = str(Path(step.__file__).parent)


@dataclass
class Found:
    """What a campaign found."""

    points: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    commands: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


class Points:
    """In the process that is to be killed: reports the points that it passes, or dies at the first new one."""

    def __init__(self, home: Path, name: str, killed: frozenset[str] | None, report: int) -> None:
        """`killed`: where processes were killed before; None only reports."""
        self.home, self.name, self.killed, self.report = home, name, killed, report

    def reach(self, moment: str, path: Path, tear: Callable[[], object] = lambda: None) -> None:
        """One moment at one change; `tear` makes the half state that this moment is about."""
        if not path.is_relative_to(self.home):
            return
        place = _checkpoint(path).relative_to(self.home).as_posix()
        if path.name in REPEATED:
            place += " by " + _callers()
        name = f"{self.name} {place} {moment}"
        if self.killed is None:
            os.write(self.report, f"{name}\n".encode())
        elif name not in self.killed:
            tear()
            os.write(self.report, f"{name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(COMMAND_S)

    def around(
        self, change: Callable[..., Any], path: Callable[..., Path | None], what: str = ""
    ) -> Callable[..., Any]:
        """The change with a point before and after it, where `path` names one."""

        def changed(*arguments: Any, **named: Any) -> Any:
            place = path(*arguments, **named)
            if place is None:
                return change(*arguments, **named)
            self.reach(f"before {what}".rstrip(), place)
            result = change(*arguments, **named)
            self.reach(f"after {what}".rstrip(), place)
            return result

        return changed

    def install(self) -> None:
        """Put the points into every way by which the project changes files durably."""
        durable._rename = self.around(durable._rename, lambda source, target: target)
        durable._flush = self._flush
        durable.make_folder = self.around(durable.make_folder, lambda folder: None if folder.exists() else folder)
        pathlib.Path.unlink = self.around(pathlib.Path.unlink, _removed, "removal")  # type: ignore[method-assign]
        remove_tree = shutil.rmtree

        def rmtree(folder: Path, *arguments: Any, **named: Any) -> None:
            if not folder.exists():
                return
            place = _kind(folder)
            self.reach("before removal", place)
            self.reach("torn removal", place, lambda: _remove_half(folder))
            remove_tree(folder, *arguments, **named)
            self.reach("after removal", place)

        shutil.rmtree = rmtree  # type: ignore[assignment]
        self._install_in_store()

    def _flush(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.name.endswith(durable.TMP_SUFFIX) and stat.S_ISREG(os.fstat(fd).st_mode):
            target = path.with_name(durable.target_name(path.name))
            self.reach("torn", target, lambda: os.truncate(path, os.fstat(fd).st_size // 2))

    def _install_in_store(self) -> None:
        from so8t.benchmark.store import SampleStore

        opened = SampleStore._open

        def place(store: SampleStore, *_: object) -> Path:
            # How much is in it tells its batches apart.
            return store.path.with_name(f"{store.path.name} with {len(store)}")

        def open_traced(store: SampleStore) -> Any:
            connection = opened(store)
            connection.set_trace_callback(
                lambda statement: self.reach("torn", place(store)) if statement == "COMMIT" else None
            )
            return connection

        SampleStore._open = open_traced  # type: ignore[method-assign]
        put = SampleStore.put

        def put_killed(store: SampleStore, *arguments: Any) -> None:
            name = place(store)
            self.reach("before", name)
            put(store, *arguments)
            self.reach("after", name)

        SampleStore.put = put_killed  # type: ignore[method-assign]


def _callers() -> str:
    """The nearest lines of the project, outside durable.py, that led here."""
    frame, lines = sys._getframe(2), list[str]()
    while frame is not None and len(lines) < 4:
        file = frame.f_code.co_filename
        if file.startswith(CODE) and file != durable.__file__:
            lines.append(f"{Path(file).name}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return "<".join(lines)


def _removed(path: Path, missing_ok: bool = False) -> Path | None:
    """Only what somebody could miss: no lock, no temporary file."""
    return path if path.is_file() and path.suffix not in (durable.TMP_SUFFIX, ".lock") else None


def _kind(folder: Path) -> Path:
    """What is removed under a temporary or a trash name, whatever it was called before."""
    if folder.suffix == durable.TMP_SUFFIX:
        return folder.with_name(re.sub(r"\d+", "N", folder.name))
    return folder.with_name(TRASH) if folder.name.startswith(TRASH) else folder


def _checkpoint(path: Path) -> Path:
    """The same, without the number of a nameless checkpoint or of one that is being removed."""
    if path.suffix == durable.TMP_SUFFIX:
        return path.with_name(re.sub(r"-\d+", "-N", path.name))
    parts = (
        re.sub(r"(?<=-)\d+(?=$|\.tmp$)", lambda n: "N" if int(n[0]) in _nameless else n[0], part) for part in path.parts
    )
    return Path(*parts)


def _remove_half(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files[: (len(files) + 1) // 2]:
        os.unlink(path)  # noqa: PTH108 - Path.unlink has a point


def _due(trainer: Any) -> bool:
    if trainer.position in NAMELESS_AT:
        _nameless.add(trainer.global_step)
    return trainer.position in SAVED_AT


def nothing_by_the_clock(name: str) -> None:
    """A heartbeat whenever there could be one; checkpoints after fixed steps, each written before the next step."""
    session.BEAT_S = 0.0
    if name != "train":
        return
    from so8t.loop.trainer import Trainer
    from so8t.loop.writer import Writer

    begin, submit = Trainer.__init__, Writer.submit

    def begin_without_clock(trainer: Trainer, *arguments: Any) -> None:
        begin(trainer, *arguments)
        # Beside those at the end of every phase.
        trainer.pace.due = lambda: _due(trainer)  # type: ignore[method-assign]

    def submit_and_wait(writer: Writer, *arguments: Any) -> None:
        submit(writer, *arguments)
        writer.wait()

    Trainer.__init__ = begin_without_clock  # type: ignore[method-assign]
    Writer.submit = submit_and_wait  # type: ignore[method-assign]


def warm_up(refs: Sequence[Ref]) -> None:
    """Import what these steps import, and do nothing that starts a thread."""
    torch.set_num_threads(1)
    for ref in refs:
        importlib.import_module(steps()[ref.step].module)
    # What they import only when they need it.
    late = ["pandas"]
    if any(ref.step in WITH_MODELS for ref in refs):
        late += [f"transformers.models.{name}" for name in ("auto", "phi3.modeling_phi3", "siglip.modeling_siglip")]
    for name in late:
        importlib.import_module(name)
    step._code()
    step._packages()


def give(arguments: list[str], home: Path, name: str, killed: frozenset[str] | None) -> tuple[int, list[str]]:
    """Run a command in a process of its own: how it ended (negative: by which signal), and the points it reported."""
    log = home.parent / f"{home.name}.log"
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.close(reading)
            signal.alarm(COMMAND_S)
            with log.open("ab") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            Points(home, name, killed, writing).install()
            nothing_by_the_clock(name)
            code = cli.main(arguments)
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        reported = pipe.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), reported


def order(config: Config) -> list[Ref]:
    """Every step and part after what it needs."""
    found = []
    for one in steps().values():
        parts = one.parts(config) if one.parts else ["0" if one.counted else ""]  # the rows make one shard
        found += [Ref(one.name, part) for part in parts]
    return found


def command(ref: Ref, home: Path) -> list[str]:
    """`so8t step` as a user would give it."""
    return ["step", ref.step, *(["--part", ref.part] if ref.part else []), *ARGUMENTS, "--home", str(home)]


def plant_old(home: Path) -> None:
    """Old things that cleanup is to remove, more than the processes that are killed after a removal and before its note."""
    old = time.time() - 400 * 24 * 3600
    damaged = [f"artifacts/collect/0a.damaged-{number}" for number in range(1, 7)]
    for folder in (*damaged, "logs/attempt_1", "logs/attempt_2"):
        for name in "ab":
            path = home / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"old")
            os.utime(path, (old, old))


def is_there(ref: Ref, config: Config, home: Path) -> bool:
    """Whether a home that was there before the campaign holds the step's artifact."""
    try:
        planned = plan(ref, config, Store(home))
    except NotReady:
        return False
    return Store(home).find(ref.step, planned.key) is not None


def forget(ref: Ref, config: Config, homes: Sequence[Path]) -> None:
    """Have the step begin again in homes that hold it."""
    for home in homes:
        if is_there(ref, config, home):
            key = plan(ref, config, Store(home)).key
            shutil.rmtree(Store(home).path(ref.step, key))
            shutil.rmtree(home / "sessions" / f"{ref.step}-{key[:12]}", ignore_errors=True)


def kill_at_every_point(ref: Ref, home: Path, found: Found, whole: bool) -> None:
    """Give the step's command until it ends by itself."""
    report = Report()
    while True:
        before = look(home) if ref.step == "train" else Seen(finished(home), -1, 0.0, 0)
        code, reported = give(command(ref, home), home, str(ref), frozenset(found.points) if whole else None)
        found.commands += 1
        after = look(home) if ref.step == "train" else Seen(finished(home), -1, 0.0, 0)
        compare(report, home, before, after, f"{reported}")
        if code != -signal.SIGKILL or not reported:
            break
        found.points += reported
    found.failures += report.failures
    if code != 0:
        tail = (home.parent / f"{home.name}.log").read_text(encoding="utf-8", errors="replace")[-3000:]
        found.failures.append(f"{ref} ended with {code} after {found.points[-1:]}: {tail}")


def finished(home: Path) -> dict[str, bytes]:
    """The manifests of what is done."""
    return {
        path.parent.relative_to(home).as_posix(): path.read_bytes()
        for path in (home / "artifacts").glob("*/*/manifest.json")
        if "." not in path.parent.name
    }


def campaign(root: Path, only: Sequence[str] = ()) -> Found:
    """Both homes, step by step; kills in the steps named (`bake`, `bake.quantize[Q8_0]`), or in all."""
    config = load_config(Path(ARGUMENTS[1]), ARGUMENTS[3::2])
    refs, found, began = order(config), Found(), time.monotonic()
    reference, home = root / "reference", root / "home"
    # What a home holds beforehand is made again only where it is to be killed.
    refs = [ref for ref in refs if not only or str(ref) in only or not is_there(ref, config, reference)]
    warm_up(refs)
    for ref in refs:
        whole = not only or str(ref) in only
        if whole:
            forget(ref, config, (reference, home))
        if ref.step == "cleanup":
            plant_old(reference)
            plant_old(home)
        code, passed = give(command(ref, reference), reference, str(ref), None)
        if code != 0:
            log = (root / "reference.log").read_text(encoding="utf-8", errors="replace")[-3000:]
            found.failures.append(f"undisturbed {ref} ended with {code}: {log}")
            break
        started, commands = time.monotonic(), found.commands
        kill_at_every_point(ref, home, found, whole)
        if found.failures:
            break
        if whole:
            found.reference += passed
            never = sorted(set(passed) - set(found.points))
            found.failures += [f"never killed at: {name}" for name in never]
        sys.stderr.write(f"{ref}: {found.commands - commands} commands, {time.monotonic() - started:.1f} s\n")
    judge(reference, home, found)
    found.seconds = time.monotonic() - began
    return found


def judge(reference: Path, home: Path, found: Found) -> None:
    """The same contents, nothing set aside, every byte as its manifest says."""
    contents = [
        {artifact.path.relative_to(place).as_posix(): artifact.content for artifact in Store(place).all()}
        for place in (reference, home)
    ]
    if contents[0] != contents[1]:
        found.failures.append(f"other contents than the undisturbed home: {contents}")
    found.failures += [f"set aside: {path}" for path in home.rglob("*.damaged-*")]
    if give(["verify", *ARGUMENTS, "--home", str(home)], home, "verify", None)[0] != 0:
        found.failures.append("so8t verify found damage")


def summary(found: Found) -> dict[str, Any]:
    """The figures and the list."""
    return {
        "points": len(found.points), "of_them_in_the_undisturbed_run": len(set(found.points) & set(found.reference)),
        "commands": found.commands, "seconds": round(found.seconds, 1), "failures": found.failures,
        "list": found.points,
    }  # fmt: skip


if __name__ == "__main__":
    folder_ = Path(sys.argv[1]).absolute()
    folder_.mkdir(parents=True, exist_ok=True)
    result_ = summary(campaign(folder_, sys.argv[2:]))
    (folder_ / "points.json").write_text(json.dumps(result_, indent=1), encoding="utf-8")
    sys.stdout.write(json.dumps({**result_, "list": len(result_["list"])}, indent=1) + "\n")
    sys.exit(1 if result_["failures"] else 0)
