"""Which packages the lane's Python gets: what the project's torch-free parts need on Windows, at the project's pins."""

from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ROOTS = (
    "apprise", "colorama", "cryptography", "fastapi", "faust-cchardet", "filelock", "gguf", "httpx", "huggingface_hub",
    "hypothesis", "ImageHash", "Jinja2", "lxml", "lxml_html_clean", "matplotlib", "numba", "numpy", "nvidia-ml-py", "optuna", "phonenumbers",
    "pillow", "prefect", "protego", "psutil", "pyarrow", "pycld2", "pydantic", "pytest", "pytest-timeout", "pytest-xdist",
    "PyYAML", "rich", "safetensors", "scikit-learn", "trafilatura", "tzdata", "uvicorn",
)  # fmt: skip
# torch loads libraries that Wine 8 has not; soundfile's cffi ends the process there; pywin32 is Docker's alone, and loaded only where it is used.
LEFT_OUT = frozenset({"pywin32", "torch"})
WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"}


@cache
def wanted() -> tuple[str, ...]:
    """`name==version` of every package, dependencies included, in order of their names.

    pip evaluates markers for the Python that it runs in, so the dependencies are followed here, with Windows' markers,
    through what is installed in this environment. LookupError for a package that constraints.txt does not pin.
    """
    pins = constraints()
    names = closure(ROOTS) - LEFT_OUT
    if unpinned := sorted(names - pins.keys()):
        raise LookupError(f"constraints.txt pins no {', '.join(unpinned)}")
    return tuple(sorted(f"{name}=={pins[name]}" for name in names))


def constraints() -> dict[str, str]:
    """The project's pins by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(";")[0].strip().split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def closure(roots: Iterable[str]) -> set[str]:
    """The canonical names of packages and all that they require on Windows, as far as they are installed here."""
    environment = {**default_environment(), **WINDOWS}
    seen: set[tuple[str, str]] = set()
    todo = [(canonicalize_name(name), "") for name in roots]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen or name in LEFT_OUT:
            continue
        seen.add((name, extra))
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in requires:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({**environment, "extra": extra}):
                todo += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    return {name for name, _ in seen}
