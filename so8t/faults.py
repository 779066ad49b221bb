"""What went wrong, as a type: from the exception and its causes, or from how a process ended; never from a log.

A log keeps last week's faults too, so a search of its lines finds what is long over. What a process could still raise
it tells its parent with the fault's name (`so8t.child`); what it could not, the exit code and the kernel tell.

The forms of a GPU's allocation failures are those that accelerate's `find_executable_batch_size` and PyTorch's own
`torch.cuda` know, and `CUBLAS_STATUS_ALLOC_FAILED`, which neither does.
"""

import errno
import re
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from so8t.errors import DamagedArtifact, GateFailed, Interrupted, NotFinite, So8tError, UserError
from so8t.waits import asked_s


class Fault(StrEnum):
    """The kinds that are told apart, because what to do differs."""

    STOPPED = "stopped"
    GPU_MEMORY = "gpu-memory"
    HOST_MEMORY = "host-memory"
    DISK_FULL = "disk-full"
    AUTHENTICATION = "authentication"
    RATE_LIMIT = "rate-limit"
    NETWORK = "network"
    MISSING_PACKAGE = "missing-package"
    GPU_LOST = "gpu-lost"
    NOT_FINITE = "not-finite"
    DIVERGED = "diverged"
    DAMAGED = "damaged"
    GATE = "gate"
    HANG = "hang"
    BAD_INPUT = "bad-input"
    CRASH = "crash"
    KILLED = "killed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Policy:
    """Whether one of the step's retries is spent on it where section `recovery` has no rule for it, and what a person
    is told.
    """

    retry: bool
    do: str


POLICIES: dict[Fault, Policy] = {
    Fault.STOPPED: Policy(False, "nothing: the same command, or `so8t up`, goes on from here"),
    Fault.GPU_MEMORY: Policy(
        True, "close what else uses the GPU; a smaller --profile, shorter sequences or a 4-bit base; see `so8t plan`"
    ),
    Fault.HOST_MEMORY: Policy(True, "close other programs, lower machine.workers, or a smaller --profile"),
    Fault.DISK_FULL: Policy(
        False,
        "free space, and it goes on by itself while it waits; `so8t step cleanup` removes what nothing needs, `so8t plan` says how much",
    ),
    Fault.AUTHENTICATION: Policy(False, "set HF_TOKEN or run `hf auth login` with a token that may do this"),
    Fault.RATE_LIMIT: Policy(True, "nothing: it waits as long as the server asks, then tries again"),
    Fault.NETWORK: Policy(True, "nothing: it tries again; look at the router if this lasts for hours"),
    Fault.MISSING_PACKAGE: Policy(False, "pip install -c constraints.txt with the extra that the message names"),
    Fault.GPU_LOST: Policy(True, "a fresh process tries again; if it returns, look at driver, power supply and heat"),
    Fault.NOT_FINITE: Policy(False, "lower the learning rate in the config; it was lowered by itself before"),
    Fault.DIVERGED: Policy(False, "nothing: the training went back to its newest good state by itself"),
    Fault.DAMAGED: Policy(True, "nothing: it was set aside and is made again; more than one: test disk and memory"),
    Fault.GATE: Policy(False, "read which number missed; what was measured lies in the `.damaged-<n>` folder"),
    Fault.HANG: Policy(
        True,
        "a fresh process goes on from the newest checkpoint; if it returns, report the stacks file, or raise "
        "monitor.stall_minutes where the step is only slow",
    ),
    Fault.BAD_INPUT: Policy(False, "what the message's last line says"),
    Fault.CRASH: Policy(True, "a fresh process tries again; if it returns, update driver and packages"),
    Fault.KILLED: Policy(True, "a fresh process tries again; a signal that was not ours ended this one"),
    Fault.UNKNOWN: Policy(True, "read the step's log; if it returns, report it with errors.jsonl"),
}


# What allocators say beside the types that they raise.
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
_GPU_WORDS = ("cuda", "cublas", "hip", "gpu")
# After these nothing on the device can be trusted until the process is gone (CUDA driver API, CUresult).
_LOST_WORDS = (
    "unspecified launch failure", "illegal memory access", "uncorrectable ecc", "gpu is lost", "device-side assert",
    "driver shutting down", "no cuda-capable device", "cuda_error_launch_failed", "illegal instruction was encountered",
)  # fmt: skip
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC})
# ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL
_FULL_WINERRORS = frozenset({39, 112})
_NETWORK_ERRNOS = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ECONNRESET, errno.ETIMEDOUT})
# httpx is Prefect's, httpx2 huggingface_hub's; both name their families alike.
_HTTP_MODULES = ("httpx", "httpx2", "httpcore", "httpcore2")
# NTSTATUS of a Windows process: no memory, Ctrl+C, access violation, stack overflow, heap corruption.
_NO_MEMORY, _CONTROL_C = 0xC0000017, 0xC000013A
_WINDOWS_CRASHES = frozenset({0xC0000005, 0xC00000FD, 0xC0000374, 0xC0000409})
_STOPS = frozenset({130, 143})
_CRASH_SIGNALS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
# Somebody's or something's wish: a person, a shutdown, a guard such as earlyoom (which begins with SIGTERM).
_ENDING_SIGNALS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGXCPU", "SIGUSR1", "SIGUSR2", "SIGPIPE")
# Extra of pyproject.toml by the module that it brings.
EXTRAS = {
    "accelerate": "nf4", "bitsandbytes": "nf4", "tensorboard": "tensorboard", "trackio": "trackio",
    "prefect_dask": "dask", "soundfile": "audio", "lm_eval": "lm-eval", "cchardet": "web", "lxml": "web",
    "lxml_html_clean": "web", "protego": "web", "trafilatura": "web",
}  # fmt: skip
_SECRET = re.compile(r"//[^/@\s]+@")
_MISSING = re.compile(r"No module named '([\w.]+)'")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, outermost first; a context that `raise ... from None` hides is left out."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def classify(error: BaseException) -> Fault:
    """The fault of an error. What it came from says more than what it was turned into: `UserError` comes last."""
    told = next((cause.fault for cause in causes(error) if isinstance(cause, So8tError) and cause.fault), "")
    if told:
        return Fault(told)
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return Fault.STOPPED
    found = {fault for cause in causes(error) if (fault := _of(cause)) is not None}
    return next((fault for fault in Fault if fault in found), Fault.UNKNOWN)


def _of(error: BaseException) -> Fault | None:
    """The fault of one link of a chain."""
    if isinstance(error, MemoryError):
        return Fault.HOST_MEMORY
    if isinstance(error, ModuleNotFoundError):
        return Fault.MISSING_PACKAGE
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return _of_status(status)
    if isinstance(error, OSError):
        return _of_os(error)
    if type(error).__module__.partition(".")[0] in _HTTP_MODULES:
        return Fault.NETWORK
    if isinstance(error, NotFinite | FloatingPointError):
        return Fault.NOT_FINITE
    if isinstance(error, DamagedArtifact):
        return Fault.DAMAGED
    if isinstance(error, GateFailed):
        return Fault.GATE
    if isinstance(error, UserError):
        return Fault.BAD_INPUT
    return _of_device(error)


def _of_status(status: int) -> Fault | None:
    if status in (401, 403):
        return Fault.AUTHENTICATION
    if status == 429:
        return Fault.RATE_LIMIT
    return Fault.NETWORK if status in (408, 425) or status >= 500 else None


def _of_os(error: OSError) -> Fault | None:
    if error.errno in _FULL_ERRNOS or getattr(error, "winerror", None) in _FULL_WINERRORS:
        return Fault.DISK_FULL
    if error.errno == errno.ENOMEM:
        return Fault.HOST_MEMORY
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or error.errno in _NETWORK_ERRNOS:
        return Fault.NETWORK
    return None


def _of_device(error: BaseException) -> Fault | None:
    """PyTorch raises one RuntimeError for most things: only its text tells them apart."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return Fault.GPU_MEMORY
    if not isinstance(error, RuntimeError):
        return None
    text = str(error).lower()
    if any(word in text for word in _MEMORY_WORDS):
        return Fault.GPU_MEMORY if any(word in text for word in _GPU_WORDS) else Fault.HOST_MEMORY
    return Fault.GPU_LOST if any(word in text for word in _LOST_WORDS) else None


def evidence(error: BaseException) -> dict[str, Any]:
    """What an error says of where it happened: `endpoint` (scheme, host and port), `wait_s` (asked for), `place`."""
    found: dict[str, Any] = {}
    for cause in causes(error):
        if isinstance(cause, So8tError):
            told = {"endpoint": cause.endpoint, "wait_s": cause.wait_s, "place": cause.place}
            found = {name: value for name, value in told.items() if value} | found
        if url := _url_of(cause):
            found.setdefault("endpoint", origin(str(url)))
        response = getattr(cause, "response", None)
        if response is not None and (asked := asked_s(response.headers.get("Retry-After"))):
            found.setdefault("wait_s", asked)
        if isinstance(cause, OSError) and isinstance(cause.filename, str):
            found.setdefault("place", cause.filename)
    return found


def origin(url: str) -> str:
    """Scheme, host and port of an address: a name or a password in it goes nowhere."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def without_password(text: str) -> str:
    """A text in which no address holds a name and a password; clients put the whole address into their errors."""
    return _SECRET.sub("//", text)


def _url_of(error: BaseException) -> Any:
    """Of httpx's kind; None of anything else. Its `request` is a property that may raise."""
    try:
        url = getattr(getattr(error, "request", None), "url", None)
    except RuntimeError:
        return None
    return url if getattr(url, "scheme", "") in ("http", "https") else None


def missing_package(error: BaseException) -> tuple[str, str]:
    """The module that an import did not find, and the extra of this package that brings it, empty where none does."""
    found = next((c.name for c in causes(error) if isinstance(c, ModuleNotFoundError) and c.name), "")
    if not found and (match := _MISSING.search(str(error))):
        found = match[1]
    return found, EXTRAS.get(found.partition(".")[0], "")


def classify_exit(code: int, oom_kills: int = 0, scarce: bool = False) -> Fault:
    """The fault of a process that could tell nothing any more.

    `code` is Python's `returncode` (negative: a signal) or a shell's 128 + signal; `oom_kills` is how many processes
    the kernel has killed for memory meanwhile (`oom_kills()` after minus before); `scarce`: hardly any memory was left
    when it ended, as where a guard in user space kills before the kernel must.
    """
    if code in _STOPS or code & 0xFFFFFFFF == _CONTROL_C:
        return Fault.STOPPED
    if code & 0xFFFFFFFF == _NO_MEMORY:
        return Fault.HOST_MEMORY
    if code & 0xFFFFFFFF in _WINDOWS_CRASHES:
        return Fault.CRASH
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return Fault.UNKNOWN
    if name in ("SIGKILL", "SIGTERM") and (oom_kills > 0 or scarce):
        return Fault.HOST_MEMORY
    if name in _ENDING_SIGNALS:
        return Fault.KILLED
    return Fault.CRASH if name in _CRASH_SIGNALS else Fault.UNKNOWN


def oom_kills(vmstat: Path = Path("/proc/vmstat"), cgroup: Path = Path("/proc/self/cgroup")) -> int:
    """Processes that the kernel has killed for memory, on the machine and in this control group, for comparing two
    moments; 0 where it does not count them. In a container only the group's own file tells.
    """
    return sum(_counted_kills(path) for path in (vmstat, *_group_files(cgroup)))


def _counted_kills(path: Path) -> int:
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def _group_files(cgroup: Path, root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Where the kernel counts for this process's group: `memory.events` of cgroup v2, `memory.oom_control` of v1."""
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if not controllers:
            found.append(root / place.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(root / "memory" / place.lstrip("/") / "memory.oom_control")
    return found
