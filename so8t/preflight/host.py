"""The machine itself: Python, packages, encodings, paths, sleep."""

import importlib.metadata
import importlib.util
import locale
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from so8t import durable
from so8t.cli import PROJECT
from so8t.preflight.finding import Finding
from so8t.preflight.scene import Scene

CALL_TIMEOUT_S = 5.0
CONSTRAINTS = PROJECT / "constraints.txt"
# Prefect's server starts with none from here on (docs/log.md).
FASTAPI_BELOW = (0, 151)
NAMED_MAX = 4
WINDOWS_PATH_MAX = 260
# artifacts/<step>/<64 hex digits>.partial/<a file of a base in its folder>.<8 hex digits>.tmp
OWN_PATH_MAX = 150


def check_python() -> Finding:
    """64 bits and a version that the project is tested with."""
    bits = 8 * struct.calcsize("P")
    found = f"{sys.version.split()[0]}, {bits} bit, {sys.platform}"
    if bits < 64 or sys.version_info[:2] < (3, 11):
        return Finding("python", "fail", found, "3.11 or newer, 64 bit", "install a 64-bit Python 3.11")
    return Finding("python", "ok", found)


def check_packages(constraints: Path = CONSTRAINTS) -> Finding:
    """Installed versions against the set that passes together."""
    if not constraints.is_file():
        return Finding("packages", "not looked at", f"{constraints} is not there: installed without the repository")
    here = {(d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    wanted = dict(
        line.split("==")
        for line in constraints.read_text(encoding="utf-8").splitlines()
        if "==" in line and line[0] != "#"
    )
    wanted = {name.lower().replace("_", "-"): version.strip() for name, version in wanted.items()}
    drifted = [
        f"{name} {here[name]} instead of {version}"
        for name, version in wanted.items()
        if name in here and here[name].partition("+")[0] != version.partition("+")[0]
    ]
    do = "pip install -c constraints.txt -e ."
    fastapi = here.get("fastapi", "")
    if fastapi and tuple(int(part) for part in re.findall(r"\d+", fastapi)[:2]) >= FASTAPI_BELOW:
        return Finding(
            "packages", "fail", f"fastapi {fastapi}: Prefect's server does not work with it", "below 0.151", do
        )
    vision, torch = here.get("torchvision", ""), here.get("torch", "")
    if vision and torch.endswith("+cpu") and not vision.endswith("+cpu"):
        found = f"torchvision {vision} is built for CUDA, torch {torch} is not: transformers fails to load images"
        return Finding("packages", "fail", found, "no torchvision: nothing here needs it", "pip uninstall torchvision")
    if drifted:
        more = f" and {len(drifted) - NAMED_MAX} more" if len(drifted) > NAMED_MAX else ""
        return Finding("packages", "warn", ", ".join(drifted[:NAMED_MAX]) + more, "the versions of constraints.txt", do)
    same = sum(name in here for name in wanted)
    return Finding("packages", "ok", f"{same} of the {len(wanted)} in constraints.txt are installed, in those versions")


def check_llama() -> Finding:
    """Whether llama.cpp's library loads: it is compiled on this machine."""
    if importlib.util.find_spec("llama_cpp") is None:
        return Finding("llama.cpp", "fail", "llama-cpp-python is not installed", "it, to bake and to measure",
                       "pip install -c constraints.txt -e . (it needs a C++ compiler; see README)")  # fmt: skip
    try:
        import llama_cpp
    except (OSError, RuntimeError, ImportError) as error:
        return Finding("llama.cpp", "fail", f"its library does not load: {error}", "a build for this machine",
                       "pip install --force-reinstall --no-deps --no-binary :all: llama-cpp-python")  # fmt: skip
    return Finding("llama.cpp", "ok", f"llama-cpp-python {llama_cpp.__version__} loads; {os.cpu_count()} cores")


def check_home(scene: Scene) -> Finding:
    """Whether the home can be written, by writing."""
    home = scene.store.home
    try:
        durable.make_folder(home)
        # A name of its own: a doctor and a run's own look may be at it in the same moment.
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-", suffix=".tmp") as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        return Finding(
            "home",
            "fail",
            f"{home}: {error.strerror}",
            "a folder that you may write",
            "choose one with --home DIR or SO8T_HOME",
        )
    return Finding("home", "ok", f"{home} is writable")


def check_encodings() -> Finding:
    """What text becomes where nobody says: our own files are UTF-8 in any case, other programs' output is not."""
    files, names = locale.getpreferredencoding(False), sys.getfilesystemencoding()
    found = f"files {files}, names {names}, console {getattr(sys.stdout, 'encoding', None) or 'none'}"
    if sys.platform == "win32":
        import ctypes

        found += f", console code page {ctypes.windll.kernel32.GetConsoleOutputCP()}, UTF-8 mode {sys.flags.utf8_mode}"
    do = "set PYTHONUTF8=1 for your account" if sys.platform == "win32" else "set LANG to one that ends in UTF-8"
    if "utf" not in names.lower():
        return Finding("encodings", "fail", found, "file names in UTF-8", do)
    if "utf" not in files.lower():
        return Finding("encodings", "warn", found, "UTF-8 for what libraries open without saying", do)
    return Finding("encodings", "ok", found)


def check_paths(scene: Scene) -> Finding:
    """Windows refuses paths of 260 characters unless it is told otherwise; elsewhere there is nothing to look at."""
    longest = len(str(scene.store.home)) + OWN_PATH_MAX
    if sys.platform != "win32":
        return Finding("long paths", "ok", f"no limit of {WINDOWS_PATH_MAX} here; ours reach {longest} characters")
    import winreg

    key = r"SYSTEM\CurrentControlSet\Control\FileSystem"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
            allowed = bool(winreg.QueryValueEx(opened, "LongPathsEnabled")[0])
    except OSError:
        allowed = False
    found = f"long paths are {'on' if allowed else 'off'}; ours reach {longest} characters"
    if allowed or longest < WINDOWS_PATH_MAX:
        return Finding("long paths", "ok", found)
    return Finding(
        "long paths", "fail", found, f"fewer than {WINDOWS_PATH_MAX}, or long paths on",
        "choose a shorter home with --home DIR, or set LongPathsEnabled to 1 (Local Group Policy, Filesystem)",
    )  # fmt: skip


def check_sleep() -> Finding:
    """Whether the machine goes to sleep by itself, and whether it runs from its battery now."""
    idle_s, how = _idle_sleep_s()
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    told = "" if battery is None else f"; {'mains' if battery.power_plugged else 'BATTERY'}, {battery.percent:.0f} %"
    if battery is not None and battery.power_plugged is False:
        return Finding("power", "warn", f"{how}{told}", "mains: days of work empty a battery", "plug it in")
    if idle_s:
        return Finding("power", "warn", f"{how}{told}", "no sleep while a run works", _no_sleep())
    return Finding("power", "not looked at" if idle_s is None else "ok", f"{how}{told}")


def _no_sleep() -> str:
    return {
        "win32": "powercfg /change standby-timeout-ac 0",
        "darwin": "sudo pmset -c sleep 0 (autostart's own agent runs under caffeinate)",
    }.get(sys.platform, "set IdleAction=ignore in /etc/systemd/logind.conf")


def _idle_sleep_s() -> tuple[float | None, str]:
    """Seconds of idling on mains until it sleeps, 0 for never; None where that could not be read, with the reason."""
    if sys.platform == "win32":
        return read_powercfg(_said("powercfg", "/query", "SCHEME_CURRENT", "SUB_SLEEP", "STANDBYIDLE"))
    if sys.platform == "darwin":
        return read_pmset(_said("pmset", "-g", "custom"))
    return read_logind([Path("/etc/systemd/logind.conf"), *sorted(Path("/etc/systemd/logind.conf.d").glob("*.conf"))])


def _said(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            list(command), check=False, capture_output=True, timeout=CALL_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def read_powercfg(text: str) -> tuple[float | None, str]:
    """Its words are localised; the last two hexadecimal numbers are the seconds on mains and on battery."""
    numbers = re.findall(r"0x([0-9a-fA-F]{8})\b", text)
    if len(numbers) < 2:
        return None, "powercfg tells no sleep timeout"
    seconds = int(numbers[-2], 16)
    return float(seconds), f"sleeps after {seconds / 60:g} min on mains" if seconds else "does not sleep on mains"


def read_pmset(text: str) -> tuple[float | None, str]:
    """The `sleep` minutes of the part for mains."""
    mains = text.partition("AC Power:")[2].partition("Battery Power:")[0]
    found = re.search(r"^\s*sleep\s+(\d+)", mains, re.MULTILINE)
    if found is None:
        return None, "pmset tells no sleep timeout"
    minutes = int(found[1])
    return 60.0 * minutes, f"sleeps after {minutes} min on mains" if minutes else "does not sleep on mains"


def read_logind(paths: list[Path]) -> tuple[float | None, str]:
    """systemd's own idle action; a desktop has settings of its own, which are not read."""
    found = [path for path in paths if path.is_file()]
    if not found:
        return None, "no systemd-logind here, so whether it sleeps by itself is not known"
    lines = [line.strip() for path in found for line in path.read_text(encoding="utf-8").splitlines()]
    actions = [line.partition("=")[2].strip() for line in lines if line.startswith("IdleAction=")]
    action = actions[-1] if actions else "ignore"
    if action in ("ignore", "lock"):
        return 0.0, "systemd does not put it to sleep (a desktop's own setting is not read)"
    return 1.0, f"systemd does when idle: {action}"
