"""A Windows CPython 3.11 from what the package registry has: no installer is asked for.

A game engine's wheel holds CPython's own DLLs for the programs that it packs. The executable is three lines around
`Py_Main`; python3.dll, through which extensions of the stable ABI find the interpreter, passes every name on.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

NATIVE = Path(__file__).parent / "native"
WHEEL = "panda3d==1.10.16"
INSIDE = "deploy_libs/"
TARGET = "x86_64-w64-mingw32"
COMPILER = f"{TARGET}-gcc"
BESIDE = ("python311.dll", "VCRUNTIME140.dll")
SUPPORT = ("libffi-8.dll", "libcrypto-3.dll", "libssl-3.dll", "sqlite3.dll")
# Wine's own C runtime serves; windows and the rest of Tk are not asked for.
NOT_WANTED = shutil.ignore_patterns(
    "site-packages", "dist-packages", "__pycache__", "test", "tests", "lib-dynload", "config-3.*", "idlelib",
    "tkinter", "turtledemo", "*.so", "EXTERNALLY-MANAGED",
)  # fmt: skip
EXPORT = re.compile(r"^\s+\[\s*\d+\] (?:\+base\[\s*\d+\] +[0-9a-f]+ )?(\w+)$", re.M)


def fingerprint() -> str:
    """What the interpreter is made from."""
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(NATIVE.iterdir()))
    return f"{WHEEL} {sys.version} {Path(__file__).read_text(encoding='utf-8')} {sources}"


def make(home: Path) -> None:
    """Fill a folder with python.exe, its DLLs and the standard library of the Python that runs this."""
    with tempfile.TemporaryDirectory() as work:
        _runtime(home, Path(work))
        _build(home, Path(work))
    _library(home / "Lib")


def _runtime(home: Path, work: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--dest", str(work)),
            *("--platform", "win_amd64", "--python-version", "3.11", "--only-binary=:all:", "--no-deps", WHEEL),
        ],
        check=True,
    )
    extensions = home / "DLLs"
    extensions.mkdir()
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        for name in wheel.namelist():
            short = name.removeprefix(INSIDE)
            if name.startswith(INSIDE) and (short in BESIDE or short in SUPPORT or short.endswith(".pyd")):
                ((home if short in BESIDE else extensions) / short).write_bytes(wheel.read(name))


def _build(home: Path, work: Path) -> None:
    def run(tool: str, *arguments: str) -> str:
        done = subprocess.run(
            [f"{TARGET}-{tool}", *arguments], cwd=work, check=True, capture_output=True, encoding="utf-8"
        )
        return done.stdout

    for source in NATIVE.iterdir():
        shutil.copy(source, work)
    names = EXPORT.findall(run("objdump", "-p", str(home / "python311.dll")))
    assert "Py_Main" in names
    _definition(work / "python311.def", names)
    _definition(work / "python3.def", [f"{name} = python311.{name}" for name in names])
    run("dlltool", "-d", "python311.def", "-l", "libpython311.a")
    run("windres", "python.rc", "python.o")
    run("gcc", "-municode", "-O2", "-s", "-o", str(home / "python.exe"), "python.c", "python.o", "libpython311.a")
    run("gcc", "-shared", "-s", "-nostartfiles", "-o", str(home / "python3.dll"), "python3.def", "-Wl,--entry=0")
    library = str(home / "bcryptprimitives.dll")
    run("gcc", "-shared", "-s", "-O2", "-o", library, "bcryptprimitives.c", "-ladvapi32")


def _definition(path: Path, exports: list[str]) -> None:
    path.write_text(f"LIBRARY {path.stem}.dll\nEXPORTS\n" + "\n".join(exports) + "\n", encoding="utf-8")


def _library(target: Path) -> None:
    shutil.copytree(sysconfig.get_path("stdlib"), target, ignore=NOT_WANTED)
    # The DLL's import system, of a later 3.11 than this library may be, calls it on the class.
    path = target / "importlib" / "metadata" / "__init__.py"
    text = path.read_text(encoding="utf-8")
    plain = "    def invalidate_caches(cls):"
    if f"@classmethod\n{plain}" not in text:
        assert plain in text
        path.write_text(text.replace(plain, f"    @classmethod\n{plain}"), encoding="utf-8", newline="\n")
