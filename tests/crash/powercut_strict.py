"""The strictest disk that POSIX allows, as a model over a recorded run: what was not fsynced is not there.

A run is recorded by strace. The model keeps two trees, the live one and the durable one: fsync of a file makes
its bytes durable, fsync of a folder the names in it, and nothing else makes anything durable. Real file systems
order names by their journal and so forgive a missing fsync of a folder; this one does not. Leaving out a
recorded fsync gives a mutant at no cost.
"""

import itertools
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,"
    "write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,sendfile,copy_file_range,fsync,fdatasync"
)
_WRITES = {"write", "writev", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate"}
_WHOLE = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+)")
_CUT_OFF = re.compile(r"^(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)\)\s+= (-?\d+)")
_FD = re.compile(r"^\s*\d+<([^>]*)>")
_PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """One finished system call: its arguments as strace prints them, and where it stands in the record."""

    name: str
    arguments: str
    number: int


def why_not() -> str:
    """Why nothing can be recorded here; "" where it can."""
    if not shutil.which("strace"):
        return "needs strace"
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr!r}"


def record(command: list[str], log: Path, cwd: Path, environment: dict[str, str]) -> list[Call]:
    """Run a command, and all it starts, to a good end; gives its calls in the order in which they ended."""
    strace = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log)]
    done = subprocess.run([*strace, *command], cwd=cwd, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(_calls(log.read_text(encoding="utf-8", errors="replace").splitlines()))


def _calls(lines: list[str]) -> Iterator[Call]:
    begun: dict[str, str] = {}
    for number, line in enumerate(lines):
        if match := _CUT_OFF.match(line):
            begun[match[1]] = match[3]
            continue
        match, before = _WHOLE.match(line), ""
        if match is None:
            match = _RESUMED.match(line)
            before = begun.pop(match[1], "") if match else ""
        if match and int(match[4]) >= 0:
            yield Call(match[2], before + match[3], number)


@dataclass
class Node:
    """A file or folder. `whole` and `durable` say what the disk holds of it; `bytes_at` is a link to its bytes."""

    folder: bool
    bytes_at: Path | None = None
    names: dict[str, "Node"] = field(default_factory=dict)
    durable: dict[str, "Node"] = field(default_factory=dict)
    whole: bool = False


def keep_bytes(root: Path, kept: Path) -> None:
    """In the recorded program: link what each fsync makes durable into `kept`, since it may be gone at the end."""
    real, numbers = os.fsync, itertools.count()

    def fsync(fd: int) -> None:
        real(fd)
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
        if not path.is_dir():
            name = urllib.parse.quote(path.relative_to(root).as_posix(), safe="")
            os.link(path, kept / f"{next(numbers)}#{name}")

    os.fsync = fsync


class StrictDisk:
    """The two trees under one folder, which is empty and durable when the record begins."""

    def __init__(self, root: Path, kept: Path | None = None) -> None:
        self.root, self.kept, self.tree = root, kept, Node(folder=True)

    def apply(self, call: Call) -> None:
        """One call; calls outside the folder do nothing."""
        if call.name in _WRITES or call.name in {"fsync", "fdatasync", "sendfile", "copy_file_range"}:
            self._on_descriptor(call)
            return
        places = [self._parts(folder, name) for folder, name in _PLACE.findall(call.arguments)]
        if call.name.startswith(("open", "creat")):
            if places[0] is not None and ("O_CREAT" in call.arguments or call.name == "creat"):
                names = self._folder(places[0]).names
                names.setdefault(places[0][-1], Node(folder=False))
            if places[0] is not None and "O_TRUNC" in call.arguments:
                self._touch(places[0])
        elif call.name.startswith("mkdir"):
            if places[0] is not None:
                self._folder(places[0]).names[places[0][-1]] = Node(folder=True)
        elif call.name.startswith("rename"):
            source, target = places
            moved = self._folder(source).names.pop(source[-1]) if source else Node(folder=False)
            if target:
                self._folder(target).names[target[-1]] = moved
        elif call.name.startswith(("unlink", "rmdir")):
            if places[0] is not None:
                self._folder(places[0]).names.pop(places[0][-1], None)
        elif call.name in {"link", "linkat"} and self.kept and f'"{self.kept}/' in call.arguments:
            link = Path(_PLACE.findall(call.arguments)[1][1])
            node = self._node(tuple(urllib.parse.unquote(link.name.partition("#")[2]).split("/")))
            assert node is not None, call
            node.bytes_at = link
        else:  # link, symlink, truncate
            assert all(place is None for place in places), f"the model knows no {call.name}({call.arguments})"

    def _on_descriptor(self, call: Call) -> None:
        arguments = call.arguments
        if call.name == "copy_file_range":
            arguments = arguments.split(", ", 2)[2]
        match = _FD.match(arguments)
        parts = self._parts("", match[1]) if match else None
        if parts is None:
            return
        node = self._node(parts)
        if node is None:  # its name is gone, its bytes are nobody's
            return
        if call.name not in {"fsync", "fdatasync"}:
            node.whole = False
        elif node.folder:
            node.durable = dict(node.names)
        else:
            node.whole = True

    def _parts(self, folder: str, name: str) -> tuple[str, ...] | None:
        path = os.path.normpath(os.path.join(folder, name))  # noqa: PTH118 - text of a record, not a path of ours
        inside = os.path.relpath(path, self.root)
        return None if inside.startswith("..") else tuple(p for p in inside.split("/") if p != ".")

    def _node(self, parts: tuple[str, ...]) -> Node | None:
        node: Node | None = self.tree
        for part in parts:
            node = node.names.get(part) if node else None
        return node

    def _folder(self, parts: tuple[str, ...]) -> Node:
        node = self._node(parts[:-1])
        assert node is not None, f"the record lacks the making of {'/'.join(parts[:-1])}"
        return node

    def _touch(self, parts: tuple[str, ...]) -> None:
        node = self._node(parts)
        if node:
            node.whole = False

    def after_cut(self, target: Path, *, names: bool) -> None:
        """Lay out what a cut may leave: whole files with their bytes, all others empty.

        With `names`, every name reached the disk in time; without, only those whose folder was fsynced.
        """
        target.mkdir()
        for path, node in _walk(self.tree, durable=not names):
            place = target / path
            if node.folder:
                place.mkdir()
            elif node.whole and node.bytes_at:
                os.link(node.bytes_at, place)
            else:
                place.touch()

    def files(self) -> list[str]:
        """The live files."""
        return sorted(path for path, node in _walk(self.tree) if not node.folder)

    def loose(self) -> list[str]:
        """The live files that a cut may take or tear."""
        kept = dict(_walk(self.tree, durable=True))
        return sorted(
            path for path, node in _walk(self.tree) if not node.folder and not (node.whole and kept.get(path) is node)
        )


def _walk(node: Node, at: str = "", *, durable: bool = False) -> Iterator[tuple[str, Node]]:
    for name, child in (node.durable if durable else node.names).items():
        yield at + name, child
        if child.folder:
            yield from _walk(child, f"{at}{name}/", durable=durable)


def fsynced(call: Call, root: Path) -> str | None:
    """The path, relative to the root, of what an fsync made durable; None for other calls."""
    match = _FD.match(call.arguments) if call.name in {"fsync", "fdatasync"} else None
    if match is None or not Path(match[1]).is_relative_to(root):
        return None
    return Path(match[1]).relative_to(root).as_posix()
