"""What the published repository consists of: which file of which artifact goes where."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from so8t import durable
from so8t.artifacts import Artifact, check_hashes, hash_file
from so8t.errors import DamagedArtifact, StepFailed
from so8t.progress import Progress

# Role (`quantized.*` as its first word), folder in the artifact, folder in the repository.
PLACES = (
    ("fold", "hf", ""),
    ("fold", "vision", "vision"),
    ("fold", "gguf", "gguf"),
    ("quantized", "", "gguf"),
    ("train", "adapter", "adapter"),
    ("train", "vision", "adapter/vision"),
    ("train", "head", "head"),
    ("benchmark", "", "eval"),
)
# Single files: role, file in the artifact, path in the repository.
FILES = (
    ("base", "LICENSE", "LICENSE"),
    ("data", "data_card.md", "data_card.md"),
    ("data", "data_card.json", "data_card.json"),
    ("collected", "sources.json", "data_sources.json"),
    ("train", "metrics.json", "eval/training/metrics.json"),
    ("train", "history.jsonl", "eval/training/history.jsonl"),
    ("bake", "gates.json", "eval/gates.json"),
    ("bake", "gates.md", "eval/gates.md"),
    ("bake", "files.json", "eval/model_files.json"),
)
# Files that this step writes itself.
MADE = ("README.md", "Modelfile", "provenance.json", "provenance_samples.jsonl", "SHA256SUMS")
# Kind of a repository of its own: the folders that go there, and what they are called there.
SHARES = {"adapter": (("adapter/", ""), ("head/", "head/")), "gguf": (("gguf/", ""),)}
# Every repository has these.
SHARED = frozenset({"LICENSE"})
SUFFIXES = frozenset(
    {
        ".csv",
        ".gguf",
        ".html",
        ".jinja",
        ".json",
        ".jsonl",
        ".md",
        ".model",
        ".png",
        ".safetensors",
        ".svg",
        ".txt",
        ".yaml",
    }
)
BARE_NAMES = frozenset({"LICENSE", "Modelfile", "NOTICE", "SHA256SUMS"})
# Safe on every file system that may hold a copy, and in a URL.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Entry:
    """One file of the repository, where its bytes lie now, and the artifact's file that it is."""

    path: str
    source: Path
    size_bytes: int
    sha256: str
    role: str = ""  # empty: made by this step
    file: str = ""


@dataclass(frozen=True)
class Repository:
    """One repository to publish: `kind` is model, adapter or gguf, `root` where this step wrote its own files."""

    kind: str
    root: Path
    entries: list[Entry]


def share(entries: list[Entry], kinds: Collection[str]) -> dict[str, list[Entry]]:
    """Deal the files out to the kinds of repositories there are; what has none of its own goes to `model`."""
    dealt: dict[str, list[Entry]] = {kind: [] for kind in kinds}
    for entry in entries:
        kind, path = _share_of(entry.path, kinds)
        dealt[kind].append(replace(entry, path=path))
        if entry.path in SHARED:
            for other in dealt.keys() - {kind}:
                dealt[other].append(entry)
    return {kind: sorted(some, key=lambda entry: entry.path) for kind, some in dealt.items()}


def _share_of(path: str, kinds: Collection[str]) -> tuple[str, str]:
    for kind in SHARES.keys() & set(kinds):
        for folder, name in SHARES[kind]:
            if path.startswith(folder):
                return kind, name + path.removeprefix(folder)
    return "model", path


def verify_inputs(inputs: Mapping[str, Artifact], progress: Progress) -> None:
    """Read every byte of every input; DamagedArtifact lists what differs from its manifest."""
    problems = []
    for done, (role, artifact) in enumerate(sorted(inputs.items())):
        progress.update(done, len(inputs), f"checking the hashes of {role}")
        problems += check_hashes(artifact.path)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise DamagedArtifact(
            f"{len(problems)} file(s) are not what their manifests say; nothing was published\n{listed}\n"
            "  do:     run `so8t verify`, which sets damaged artifacts aside, then run the pipeline again"
        )


def gather(inputs: Mapping[str, Artifact]) -> list[Entry]:
    """The repository's files that come from artifacts, sorted by path. Volatile files are never published."""
    entries = []
    for role, artifact in sorted(inputs.items()):
        for file in artifact.manifest.files:
            target = None if file.volatile else _place(role.partition(".")[0], file.path)
            if target is not None and target not in MADE:
                source = artifact.path / file.path
                entries.append(Entry(target, source, file.size_bytes, file.sha256, role, file.path))
    return sorted(entries, key=lambda entry: entry.path)


def _place(role: str, file: str) -> str | None:
    for wanted, name, target in FILES:
        if (role, file) == (wanted, name):
            return target
    for wanted, folder, target in PLACES:
        inside = file.removeprefix(folder + "/") if folder else file
        if role == wanted and (not folder or inside != file):
            return f"{target}/{inside}" if target else inside
    return None


def made_entry(root: Path, name: str) -> Entry:
    """The entry of a file that this step has written."""
    path = root / name
    return Entry(name, path, path.stat().st_size, hash_file(path))


def sums(entries: list[Entry]) -> str:
    """The text of SHA256SUMS, as `sha256sum --check` reads it."""
    return "".join(f"{entry.sha256}  {entry.path}\n" for entry in sorted(entries, key=lambda entry: entry.path))


def check_entries(entries: list[Entry]) -> None:
    """Refuse what must not be published: StepFailed names every bad path, type, link and clash."""
    faults = []
    times = Counter(entry.path.casefold() for entry in entries)
    for entry in entries:
        path = PurePosixPath(entry.path)
        if not all(NAME.fullmatch(part) and not durable.WINDOWS_DEVICES.fullmatch(part) for part in path.parts):
            faults.append(f"{entry.path}: not a portable path")
        if path.suffix.lower() not in SUFFIXES and path.name not in BARE_NAMES:
            faults.append(f"{entry.path}: files of this type are not published")
        if entry.source.is_symlink() or not entry.source.is_file():
            faults.append(f"{entry.path}: not a plain file")
        if times[entry.path.casefold()] > 1:
            faults.append(f"{entry.path}: given twice, by {entry.role or 'this step'}/{entry.file}")
    if faults:
        raise StepFailed("the repository cannot be published\n" + "\n".join(f"  - {fault}" for fault in faults))
