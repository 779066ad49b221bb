"""`so8t doctor`: checks this machine and says what to do. "ok" is said only of what was checked."""

import argparse
import importlib.metadata
import json
import locale
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from so8t import durable
from so8t.cli import add_config_arguments

if TYPE_CHECKING:
    from so8t.config import Config

GIB = 1 << 30
DISK_WANTED_GIB, MEMORY_WANTED_GIB = 5, 4
FASTAPI_BELOW = (0, 151)


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what to do where it is not ok."""

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    do: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON list")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Exit 0 unless a check failed."""
    from so8t.config import load_config

    config = load_config(options.config, options.overrides, options.home)
    findings = [check(config) for check in CHECKS]
    if options.json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False) + "\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.state:<5} {finding.check:<10} {finding.found}\n")
            if finding.do:
                sys.stdout.write(f"      {'':<10} do: {finding.do}\n")
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def _python(config: "Config") -> Finding:
    found = sys.version.split()[0]
    if sys.maxsize < 2**32:
        return Finding("python", "fail", f"{found}, 32 bit", "install a 64-bit Python 3.11")
    return Finding("python", "ok", f"{found}, 64 bit")


def _packages(config: "Config") -> Finding:
    fastapi = importlib.metadata.version("fastapi")
    if tuple(int(part) for part in fastapi.split(".")[:2]) >= FASTAPI_BELOW:
        return Finding("packages", "fail", f"fastapi {fastapi} breaks Prefect", "pip install -c constraints.txt -e .")
    return Finding("packages", "ok", f"prefect {importlib.metadata.version('prefect')}, fastapi {fastapi}")


def _gpu(config: "Config") -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", "warn", f"torch {torch.__version__} finds no CUDA device; the demo runs on the CPU",
                       "for a real model install a CUDA build of torch (see README)")  # fmt: skip
    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    return Finding("gpu", "ok", f"{torch.cuda.get_device_name(0)}, {memory:.1f} GiB")


def _home(config: "Config") -> Finding:
    home = config.home()
    probe = home / ".doctor.tmp"
    try:
        durable.make_folder(home)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        return Finding(
            "home", "fail", f"{home}: {error.strerror}", "choose a writable folder with --home DIR or SO8T_HOME"
        )
    return Finding("home", "ok", f"{home} is writable")


def _disk(config: "Config") -> Finding:
    place = config.home()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / GIB
    if free < DISK_WANTED_GIB:
        return Finding("disk", "fail", f"{free:.1f} GiB free at {place}", f"free at least {DISK_WANTED_GIB} GiB")
    return Finding("disk", "ok", f"{free:.1f} GiB free at {place}")


def _memory(config: "Config") -> Finding:
    import psutil

    free = psutil.virtual_memory().available / GIB
    if free < MEMORY_WANTED_GIB:
        return Finding(
            "memory", "warn", f"{free:.1f} GiB available", f"close programs until {MEMORY_WANTED_GIB} GiB are free"
        )
    return Finding("memory", "ok", f"{free:.1f} GiB available")


def _encoding(config: "Config") -> Finding:
    found = f"files {locale.getpreferredencoding(False)}, console {sys.stdout.encoding}, names {sys.getfilesystemencoding()}"
    if sys.getfilesystemencoding().lower() != "utf-8":
        return Finding("encoding", "warn", found, "set PYTHONUTF8=1")
    return Finding("encoding", "ok", found)


def _token(config: "Config") -> Finding:
    from huggingface_hub import get_token

    if get_token() is None:
        return Finding(
            "token", "warn", "no Hugging Face token", "set HF_TOKEN before an upload to the Hub; the demo needs none"
        )
    return Finding("token", "ok", "a Hugging Face token is set (its rights were not checked)")


def _server(config: "Config") -> Finding:
    from deployments.server import HOST, running_port

    port = running_port(config.home() / "prefect" / "server.json")
    if port:
        return Finding("server", "ok", f"healthy at http://{HOST}:{port}")
    return Finding("server", "warn", "not running", "nothing, `so8t run` starts one; `so8t up` keeps one")


def _autostart(config: "Config") -> Finding:
    from deployments.autostart import inspect
    from so8t.errors import So8tError

    try:
        found, faults = inspect(config.home())
    except So8tError as error:
        return Finding("autostart", "warn", f"not checked: {error}")
    if found is None:
        return Finding(
            "autostart", "warn", "not registered: nothing goes on by itself after a power cut", "so8t autostart install"
        )
    if faults:
        return Finding("autostart", "warn", f"{found.name}: {'; '.join(faults)}", "so8t autostart install")
    return Finding(
        "autostart", "ok", f"{found.name} starts {found.started.config} at logon (whether the machine switches on and"
        " logs on by itself was not checked)"
    )  # fmt: skip


def _compiler(config: "Config") -> Finding:
    import llama_cpp

    cpus = os.cpu_count()
    return Finding("llama.cpp", "ok", f"llama-cpp-python {llama_cpp.__version__} loads; {cpus} cores")


CHECKS: tuple[Callable[["Config"], Finding], ...] = (
    _python, _packages, _gpu, _home, _disk, _memory, _encoding, _token, _server, _autostart, _compiler,
)  # fmt: skip
