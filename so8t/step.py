"""The one shape of a step: `run(config, inputs, out, progress) -> facts`, files in, files out.

A step's key is the sha256 of its name, its version, its config section and the content of each
input. Code is not hashed; a step's `version` is raised by hand when it would make other bytes.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

from so8t import __version__, asked, pulse
from so8t.artifacts import Artifact, Store, hash_json
from so8t.config import Config, Machine
from so8t.durable import explain_full_disk
from so8t.errors import GateFailed, InputError, Interrupted
from so8t.progress import Progress, Sink
from so8t.recoveries import session_of
from so8t.section import Section
from so8t.session import SessionFile, SessionProgress, read

Inputs = Mapping[str, Artifact]
Known = dict["Ref", Artifact]
Facts = dict[str, Any]


class Run(Protocol):
    """What every step module offers as `run`."""

    def __call__(self, config: Any, inputs: Inputs, out: Path, progress: Progress) -> Facts:
        """Make the artifact's files in `out` (it may hold what an interrupted run left) and give the facts."""


@dataclass(frozen=True, order=True)
class Ref:
    """A step, or one part of a step: `bake.quantize` part `Q8_0`."""

    step: str
    part: str = ""

    def __str__(self) -> str:
        return f"{self.step}[{self.part}]" if self.part else self.step


@dataclass(frozen=True)
class Step:
    """A step as the rest of the program sees it; its module is imported only when it runs."""

    name: str
    module: str
    version: int
    section: Callable[[Config, str], Section]
    needs: Callable[[Config, str], dict[str, Ref]]
    parts: Callable[[Config], list[str]] | None = None
    # Parts are 0, 1, 2, ...: how many, `count(section, inputs)` of this module tells.
    counted: str = ""
    # Role and step whose counted parts are inputs too.
    fan: tuple[str, str] | None = None
    child: bool = False  # runs in a process of its own: native code may take it down
    # Long enough that its attempts, progress and end are kept in `sessions/`; "own": it notes its progress itself.
    session: Literal["", "followed", "own"] = ""
    volatile: frozenset[str] = frozenset()  # files (or folders ending in /) that the clock decides


def steps() -> dict[str, Step]:
    """All steps by name, in the order of the pipeline."""
    from so8t.wiring import STEPS

    return STEPS


def trainings() -> list[str]:
    """The steps that write checkpoints into their session."""
    return [step.name for step in steps().values() if step.session == "own"]


def lookup(ref: Ref, config: Config) -> Step:
    """The step of a reference; InputError names what exists."""
    known = steps()
    if ref.step not in known:
        raise InputError(f"no step {ref.step!r}", "one of " + ", ".join(known))
    step = known[ref.step]
    if step.counted:
        if re.fullmatch(r"0|[1-9][0-9]*", ref.part):
            return step  # whether there are so many is known with its inputs
        raise InputError(f"{ref.step} has no part {ref.part!r}", "--part 0, 1, 2, ...")
    parts = step.parts(config) if step.parts else [""]
    if not parts:
        raise InputError(f"this config leaves {ref.step} out", "a config that asks for it")
    if ref.part not in parts:
        raise InputError(
            f"{ref.step} has no part {ref.part!r}", f"--part one of: {', '.join(parts)}" if step.parts else "no --part"
        )
    return step


def parts_of(
    step: Step, config: Config, store: Store, *, read_only: bool = False, known: Known | None = None
) -> list[str]:
    """The parts that this config asks for, of a counted step once its inputs are there; NotReady before."""
    if not step.counted:
        return step.parts(config) if step.parts else [""]
    first = plan(Ref(step.name, "0"), config, store, read_only=read_only, known=known)
    return [str(number) for number in range(_count(first))]


class NotReady(InputError):
    """An input has not been made yet, so the key cannot be known."""

    def __init__(self, ref: Ref, missing: Ref) -> None:
        part = f" --part {missing.part}" if missing.part else ""
        super().__init__(
            f"{ref} needs {missing}, which is not in the store",
            "finished inputs",
            f"run `so8t step {missing.step}{part}` with the same config first, or `so8t run` for everything",
        )
        self.missing = missing


@dataclass(frozen=True)
class Plan:
    """A step with its inputs found and its key known."""

    ref: Ref
    step: Step
    section: Section
    inputs: dict[str, Artifact]
    key: str


def plan(ref: Ref, config: Config, store: Store, *, read_only: bool = False, known: Known | None = None) -> Plan:
    """Find the inputs of a step and compute its key; NotReady if an input is missing.

    Whoever plans many steps in one look gives all of them the same `known`, so that each input is looked at once.
    """
    return _plan(ref, config, store.peek if read_only else store.find, {} if known is None else known)


def _plan(ref: Ref, config: Config, find: Callable[[str, str], Artifact | None], known: Known) -> Plan:
    """`known` holds the inputs found so far, since many steps share them."""
    step = lookup(ref, config)
    inputs: dict[str, Artifact] = {}
    needs = step.needs(config, ref.part)
    if step.fan:
        role, name = step.fan
        first = _plan(Ref(name, "0"), config, find, known)
        needs |= {f"{role}.{number}": Ref(name, str(number)) for number in range(_count(first))}
    for role, needed in needs.items():
        if needed not in known:
            artifact = find(needed.step, _plan(needed, config, find, known).key)
            if artifact is None:
                raise NotReady(ref, needed)
            known[needed] = artifact
        inputs[role] = known[needed]
    section = step.section(config, ref.part)
    planned = Plan(ref, step, section, inputs, compute_key(step, section, inputs))
    if step.counted and int(ref.part) >= _count(planned):
        raise InputError(f"{ref.step} has no part {ref.part!r}", f"--part 0 to {_count(planned) - 1}")
    return planned


def _count(planned: Plan) -> int:
    """How many parts a counted step has."""
    count: Callable[[Section, Inputs], int] = importlib.import_module(planned.step.counted).count
    return count(planned.section, planned.inputs)


def compute_key(step: Step, section: Section, inputs: Inputs) -> str:
    """The key: inputs count by content, not by their own keys."""
    return hash_json(
        {
            "step": step.name,
            "version": step.version,
            "config": section.model_dump(mode="json"),
            "inputs": {role: artifact.content for role, artifact in inputs.items()},
        }
    )


def execute(ref: Ref, config: Config, store: Store, sinks: tuple[Sink, ...] = ()) -> Artifact:
    """Give the step's artifact, made here and now unless the store holds it whole."""
    return make(plan(ref, config, store), config.machine, store, sinks)


def make(planned: Plan, machine: Machine, store: Store, sinks: tuple[Sink, ...] = ()) -> Artifact:
    """Give a planned step's artifact, made here and now unless the store holds it whole."""
    found = store.find(planned.step.name, planned.key)
    if found is not None:
        return found
    step = planned.step
    with store.working(step.name, planned.key) as out:
        found = store.find(step.name, planned.key)
        if found is not None:
            return found
        started_at = _now()
        run: Run = importlib.import_module(step.module).run
        with explain_full_disk(out), ExitStack() as stack:
            with _session(planned, store.home) as session:
                follow = (SessionProgress(session),) if session and step.session == "followed" else ()
                progress = Progress(str(planned.ref), machine, store.home, (*sinks, *follow), session)
                # The commit too, which reads every file once more.
                stack.enter_context(pulse.heard(progress.beat))
                try:
                    with asked.taken(session.session.overrides if session else {}):
                        facts = run(planned.section, planned.inputs, out, progress)
                except GateFailed as error:
                    raise GateFailed(f"{error}\n{_kept(planned, store.set_aside(out))}") from error
            return store.commit(
                out,
                {
                    "step": step.name,
                    "version": step.version,
                    "key": planned.key,
                    "inputs": {
                        role: {"step": a.manifest.step, "key": a.manifest.key, "content": a.content}
                        for role, a in planned.inputs.items()
                    },
                    "config": planned.section.model_dump(mode="json"),
                    "facts": facts,
                    "code": _code(),
                    "packages": _packages(),
                    "machine": _machine(),
                    "started_at": started_at,
                    "finished_at": _now(),
                },
                step.volatile,
            )


def _kept(planned: Plan, folder: Path) -> str:
    measured = ", ".join(str(artifact.path) for artifact in planned.inputs.values())
    return f"kept for a look: {folder}; it was made from {measured}"


def assist(ref: Ref, config: Config, store: Store) -> None:
    """Compute a share of a step that another process makes with `execute`; nothing is written to the home."""
    planned = plan(ref, config, store, read_only=True)
    if store.peek(planned.step.name, planned.key) is not None:
        return
    run: Run = importlib.import_module(planned.step.module).run
    session = read(store.home / "sessions" / session_of(planned.step.name, planned.key))
    with TemporaryDirectory(prefix="so8t-") as out, asked.taken(session.overrides if session else {}):
        run(planned.section, planned.inputs, Path(out), Progress(str(ref), config.machine, store.home))


@contextmanager
def _session(planned: Plan, home: Path) -> Iterator[SessionFile | None]:
    """The step's session, if it keeps one, with the end of this attempt written to it.

    It is completed before the commit: a cut between the two opens it again, where the other order would leave
    it unfinished for ever beside a finished artifact.
    """
    if not planned.step.session:
        yield None
        return
    session = SessionFile.open(home, session_of(planned.step.name, planned.key), planned.step.name)
    try:
        yield session
    except (Interrupted, KeyboardInterrupt):
        session.end("interrupted")
        raise
    except BaseException:
        session.end("failed")
        raise
    session.end("completed")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def _code() -> dict[str, Any]:
    """Commit and dirtiness of the checkout that runs, or the version alone outside git."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True, text=True, encoding="utf-8", check=True, timeout=10,
        ).stdout.strip()  # fmt: skip

    try:
        return {"version": __version__, "commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"version": __version__, "commit": None, "dirty": None}


@cache
def _packages() -> dict[str, str]:
    return {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "byteorder": sys.byteorder,
    }
