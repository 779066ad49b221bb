"""C99's complex functions: Wine 8's C runtime ends the process at their first call, and numpy makes it when it loads.

Compiled packages ask for them through one DLL's name. The copies in the lane ask through another of the same length,
made here: mingw-w64's complex functions, and all else passed on to the runtime.
"""

import re
import subprocess
from pathlib import Path

from tests.windows.interpreter import NATIVE, TARGET

THEIRS, OURS = "api-ms-win-crt-math-l1-1-0.dll", "lane-s-win-crt-math-l1-1-0.dll"
RUNTIME = "ucrtbase"
SOURCE = NATIVE / "complexmath.c"
DEFINED = re.compile(r"\b(?:REAL|COMPLEX2?)\((c[a-z]+)\)")
SUFFIXES = ("", "f", "l")
IMPORTING = re.compile(r"^\tDLL Name: (\S+)$", re.M)
IMPORTED = re.compile(r"^\t[0-9a-f]+\t +\d+ +(\w+)$", re.M)


def recipe() -> str:
    """What the redirection is made from."""
    return SOURCE.read_text(encoding="utf-8") + Path(__file__).read_text(encoding="utf-8")


def complete(packages: Path, home: Path) -> None:
    """Redirect all that lies below `packages`, and put the DLL that they then ask for beside the interpreter."""
    wanted = set[str]()
    for path in sorted(path for path in packages.rglob("*") if path.suffix in {".pyd", ".dll"}):
        data = path.read_bytes()
        if any(name.encode("ascii") in data for name in (THEIRS, OURS)):
            wanted |= _imported(path)
            path.write_bytes(data.replace(THEIRS.encode("ascii"), OURS.encode("ascii")))
    own = {name + suffix for name in DEFINED.findall(SOURCE.read_text(encoding="utf-8")) for suffix in SUFFIXES}
    lines = [f"{name} = lane_{name}" for name in sorted(own)]
    lines += [f"{name} = {RUNTIME}.{name}" for name in sorted(wanted - own)]
    definition = home / f"{OURS}.def"
    definition.write_text("\n".join([f"LIBRARY {OURS}", "EXPORTS", *lines, ""]), encoding="ascii", newline="\n")
    command = [f"{TARGET}-gcc", "-shared", "-s", "-O2", "-static-libgcc", "-o", home / OURS, SOURCE, definition]
    subprocess.run(command, check=True)


def _imported(path: Path) -> set[str]:
    """The names that a DLL imports by the runtime's mathematical name."""
    told = subprocess.run(
        [f"{TARGET}-objdump", "-p", path], check=True, capture_output=True, encoding="utf-8", errors="replace"
    ).stdout
    parts = IMPORTING.split(told)
    imports = zip(parts[1::2], parts[2::2], strict=True)
    return {name for dll, text in imports if dll in (THEIRS, OURS) for name in IMPORTED.findall(text)}
