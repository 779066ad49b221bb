"""Makes a step's artifact, and does about each fault what section `recovery` says.

What is settled here costs none of the step's retries. What is not is raised: as it came where one of the retries may
help, as GivenUp where everything has been done. A step that is stopped is neither. Nothing here decides from a log.
"""

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from so8t import child, faults, recoveries
from so8t.artifacts import Artifact, Store
from so8t.config import Config
from so8t.errors import GivenUp, InputError, InputLost, Interrupted, So8tError, UserError
from so8t.faults import POLICIES, Fault
from so8t.recovery import fresh, inputs, reach, room, training
from so8t.session import SessionFile
from so8t.step import Ref, lookup

Make = Callable[[Config], Artifact]
MB = 1e6
# A try that went on for so long before it failed was no try in a row with the one before.
ANEW_S = 900.0
GROWS = 1.1
# A sign of life for whoever looks for processes that hang.
SIGN_S = 300.0


@dataclass
class Attempts:
    """The tries of one step in one task. `run` is the session of the run, where counts outlive this process."""

    ref: Ref
    key: str
    config: Config
    store: Store
    say: Callable[[str], None]
    run: SessionFile | None = None
    stopping: threading.Event = field(default_factory=lambda: child.stopping)
    # Until when a wait in a row may last, and how many pauses it had.
    _waited_s: dict[Fault, float] = field(default_factory=dict)
    _pauses: int = 0
    _freed: bool = False
    _counts: dict[str, int] = field(default_factory=dict)

    def make(self, make: Make) -> Artifact:
        """The artifact. Interrupted, GivenUp, InputLost, or the error as it came: a retry may be spent on it."""
        recovered: tuple[Fault, str] | None = None
        config = self.config
        while True:
            started = time.monotonic()
            try:
                artifact = make(config)
            except Interrupted:
                raise
            except Exception as error:
                if time.monotonic() - started > ANEW_S:
                    self._waited_s, self._pauses, self._freed = {}, 0, False
                fault = faults.classify(error)
                again = self._settle(fault, error)
                if again is None:
                    raise
                config, recovered = again, (fault, f"{type(error).__name__}: {_first_line(error)}")
                del error
            else:
                if recovered is not None:
                    self._note(recovered[0], "none any more", f"after {recovered[1]}", "completed")
                return artifact
            # Outside the handler: an error's traceback holds what filled the memory.
            gc.collect()

    def _settle(self, fault: Fault, error: Exception) -> Config | None:
        """Do what there is to do; the config for the next try, None where it is for the retries to decide."""
        rules = self.config.recovery
        if fault in (Fault.HOST_MEMORY, Fault.GPU_MEMORY):
            return self._memory(fault, error, rules.memory)
        if fault is Fault.DISK_FULL:
            return self._disk(error, rules.disk)
        if fault in (Fault.NETWORK, Fault.RATE_LIMIT):
            return self._network(fault, error, rules.network)
        if fault is Fault.NOT_FINITE and self._trains:
            return self._divergence(error, rules.divergence)
        if fault in (Fault.GPU_LOST, Fault.HANG):
            return self._lost(fault, error, rules.lost)
        if fault in (Fault.DAMAGED, Fault.UNKNOWN, Fault.CRASH) or isinstance(error, InputError):
            self._look_at_inputs(error, rules.damaged)
        if isinstance(error, UserError):
            return None  # it says itself what to do
        if fault is Fault.MISSING_PACKAGE:
            raise self._missing(error) from error
        if fault is Fault.AUTHENTICATION:
            raise self._stop(fault, error, "a token that may do this", POLICIES[fault].do) from error
        return None

    @property
    def _trains(self) -> bool:
        return lookup(self.ref, self.config).session == "own"

    def _memory(self, fault: Fault, error: Exception, rule: str) -> Config | None:
        if rule == "again":
            return None
        told = self._why(error)
        if rule == "smaller" and self._trains:
            file = training.session_file(self.store.home, self.ref, self.key)
            asked = training.smaller(file, self.config.recovery.halvings_max)
            if asked is not None:
                self._note(
                    fault, "smaller", f"a fresh process, micro-batch halved {asked} times; {told}", "tried again"
                )
                return self.config
        elif rule == "smaller" and self._count("fewer threads") == 1:
            threads = max(1, (self.config.machine.threads or _cores()) // 2)
            self._note(fault, "fewer threads", f"a fresh try with {threads} threads; {told}", "tried again")
            machine = self.config.machine.model_copy(update={"threads": threads, "workers": 1})
            return self.config.model_copy(update={"machine": machine})
        raise self._stop(fault, error, "a config that fits this machine", POLICIES[fault].do) from error

    def _disk(self, error: Exception, rule: str) -> Config | None:
        place = Path(faults.evidence(error).get("place") or self.store.home)
        rules = self.config.recovery
        if rule == "stop":
            raise self._stop(
                Fault.DISK_FULL, error, "free space on that volume", POLICIES[Fault.DISK_FULL].do
            ) from error
        if rule == "free-and-wait" and not self._freed:
            self._freed = True
            gone = room.free_own(self.store, self.config.machine.checkpoint_keep)
            if gone:
                named = ", ".join(path.relative_to(self.store.home).as_posix() for path in gone[:3])
                self._note(Fault.DISK_FULL, "free-and-wait", f"removed {len(gone)} of our own: {named}", "tried again")
                return self.config
        # What was free did not do.
        wanted = max(rules.disk_room_mb * MB, GROWS * room.free_bytes(place))
        self._note(Fault.DISK_FULL, "wait for room", f"until {wanted / MB:.0f} MB are free at {place}", "waiting")
        while (free := room.free_bytes(place)) < wanted:
            if self._waited_s.get(Fault.DISK_FULL, 0.0) >= rules.disk_wait_max_s:
                raise self._stop(
                    Fault.DISK_FULL, error, f"{wanted / MB:.0f} MB free at {place}, found {free / MB:.0f}",
                    "free some space, then run the same command: it goes on from here",
                ) from error  # fmt: skip
            self.say(f"the disk is full: waiting until {wanted / MB:.0f} MB are free at {place} ({free / MB:.0f} now)")
            self._wait(Fault.DISK_FULL, rules.disk_check_s)
        self._freed = False
        self._note(Fault.DISK_FULL, "wait for room", f"{free / MB:.0f} MB are free", "went on")
        return self.config

    def _network(self, fault: Fault, error: Exception, rule: str) -> Config | None:
        if rule == "again":
            return None
        evidence, rules = faults.evidence(error), self.config.recovery
        endpoint = faults.origin(evidence.get("endpoint") or reach.hub())
        if rule == "stop":
            raise self._stop(fault, error, f"an answer of {endpoint}", POLICIES[fault].do) from error
        self._note(fault, "wait", f"until {endpoint} answers; {self._why(error)}", "waiting")
        why, asked_s = self._why(error), float(evidence.get("wait_s", 0.0))
        while True:
            pause_s = reach.pause_s(self._pauses, rules.network_pause_s, rules.network_pause_max_s, asked_s)
            if self._waited_s.get(fault, 0.0) + pause_s > rules.network_wait_max_s:
                raise self._stop(
                    fault, error, f"an answer of {endpoint}; last: {why}",
                    "look at the connection and at the server, then run the same command: it goes on from here",
                ) from error  # fmt: skip
            self.say(f"{endpoint} does not answer ({why}): looking again in {pause_s:.0f} s")
            self._pauses += 1
            self._wait(fault, pause_s)
            refused = reach.refusal(endpoint)
            if refused is None:
                self._note(fault, "wait", f"{endpoint} answers", "went on")
                return self.config
            why, asked_s = refused

    def _divergence(self, error: Exception, rule: str) -> Config | None:
        rules, fault = self.config.recovery, Fault.NOT_FINITE
        if rule == "lower-rate":
            file = training.session_file(self.store.home, self.ref, self.key)
            done = training.slower(file, rules.rate_factor, rules.divergences_max, self.config)
            if done is not None:
                rate, passed = done
                behind = f", behind {', '.join(passed)}" if passed else ""
                self._note(
                    fault, "lower-rate",
                    f"on from the newest checkpoint{behind} with {rate:g} times the learning rates; {self._why(error)}",
                    "tried again",
                )  # fmt: skip
                return self.config
        raise self._stop(fault, error, "numbers that stay finite", POLICIES[fault].do) from error

    def _lost(self, fault: Fault, error: Exception, rule: str) -> Config | None:
        if rule == "again":
            return None
        rules = self.config.recovery
        if rule == "fresh-process" and self._count_fresh(fault) <= rules.fresh_processes_max:
            told = f"in {rules.fresh_process_delay_s:g} s; {self._why(error)}"
            self._note(fault, "fresh-process", told, "tried again")
            self._wait(fault, rules.fresh_process_delay_s)
            return self.config
        wanted = "reports of progress" if fault is Fault.HANG else "a device and a driver that last"
        raise self._stop(fault, error, wanted, POLICIES[fault].do) from error

    def _look_at_inputs(self, error: Exception, rule: str) -> None:
        """InputLost where an input is damaged and has been set aside; GivenUp where it was made again already."""
        damaged = inputs.damaged_of(self.ref, self.config, self.store)
        if not damaged:
            return
        names = [f"{artifact.manifest.step} {artifact.manifest.key[:12]}" for artifact in damaged]
        twice = [name for name in names if self._count(f"remade {name}", own=False) > 1]
        if rule == "stop" or twice:
            raise self._stop(
                Fault.DAMAGED, error, f"the bytes of their manifests in {', '.join(twice or names)}",
                "test disk and memory, then `so8t verify`, which sets damaged artifacts aside",
            ) from error  # fmt: skip
        aside = [self.store.set_aside(artifact.path).name for artifact in damaged]
        self._note(Fault.DAMAGED, "remake", f"{', '.join(names)} set aside as {', '.join(aside)}", "to be made again")
        raise InputLost(
            f"{self.ref}: {', '.join(names)} is not what its manifest says; set aside as {', '.join(aside)}. "
            "The same command makes it again"
        ) from error

    def _missing(self, error: Exception) -> GivenUp:
        module, extra = faults.missing_package(error)
        wanted = f'pip install -c constraints.txt "so8t[{extra}]"' if extra else "pip install -c constraints.txt -e ."
        return self._stop(
            Fault.MISSING_PACKAGE, error, f"the package that brings {module or 'it'}", f"{wanted}; nothing is installed by itself"
        )  # fmt: skip

    def _stop(self, fault: Fault, error: Exception, wanted: str, do: str) -> GivenUp:
        self._note(fault, "stop", self._why(error), "stopped")
        found = faults.without_password(error.found if isinstance(error, UserError) else str(error))
        return GivenUp(f"{self.ref} stops ({fault}): {found}", wanted, do, fault)

    def _count(self, what: str, own: bool = True) -> int:
        """How often, this time included, this has been done for the step, or for the run."""
        name = self._named(what) if own else what
        if self.run is not None:
            self.run.count_failure(name)
            return self.run.session.failures[name]
        self._counts[name] = self._counts.get(name, 0) + 1
        return self._counts[name]

    def _count_fresh(self, fault: Fault) -> int:
        """As `_count`, but without those of long ago."""
        if self.run is None:
            return self._count(fault)
        hours = self.config.recovery.fresh_processes_hours
        return fresh.count(self.run, self._named(fault), self.ref, self.key, hours)

    def _named(self, what: str) -> str:
        return f"{self.ref} {self.key[:12]}: {what}"

    def _wait(self, fault: Fault, seconds: float) -> None:
        """Interrupted as soon as somebody wants this process to stop. A long wait says now and then that it is one."""
        self._waited_s[fault] = self._waited_s.get(fault, 0.0) + seconds
        while True:
            if self.stopping.wait(min(seconds, SIGN_S)):
                raise Interrupted(f"{self.ref} was stopped while it waited; the same command goes on from here")
            if (seconds := seconds - SIGN_S) <= 0:
                return
            self.say(f"{fault}: waiting {seconds:.0f} s more")

    def _note(self, fault: Fault, policy: str, detail: str, outcome: str) -> None:
        session = self.run.session.session_id if self.run else recoveries.session_of(self.ref.step, self.key)
        recoveries.record(
            self.store.home, session, step=str(self.ref), fault=fault, policy=policy, detail=detail, outcome=outcome
        )
        self.say(f"{fault}: {policy}: {detail}")

    def _why(self, error: Exception) -> str:
        return (
            f"{type(error).__name__}: {_first_line(error)}" if not isinstance(error, So8tError) else _first_line(error)
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in faults.without_password(str(error)).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _cores() -> int:
    return os.cpu_count() or 1
