"""What the test Hub keeps: repositories with commits, branches and tags, and the large objects beside them."""

import base64
import hashlib
import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

WRITE_TOKEN = "token-that-may-write"
READ_TOKEN = "token-that-may-read"
USER = "tester"
ORGANISATIONS = ("lab",)
LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".parquet", ".model", ".png", ".zip")
REGULAR_MAX_BYTES = 10 << 20


class HubError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class File:
    """One entry of a tree: `oid` is the git blob id, `lfs` the sha256 of a large object."""

    size: int
    oid: str
    lfs: str = ""


@dataclass
class Commit:
    """One commit; the whole tree is kept."""

    parent: str
    title: str
    tree: dict[str, File]


@dataclass
class Repo:
    """One repository."""

    id: str
    type: str
    private: bool = True
    gated: bool | str = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    # The Hub's tags lag behind the card, or lack what it says; None: they follow it.
    licence_tags: list[str] | None = None
    disabled: bool = False
    # Pull requests by number from 1: title, status and the branch they go to; their heads are branches `refs/pr/<n>`.
    pulls: list[dict[str, str]] = field(default_factory=list)

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag or oid."""
        revision = "main" if revision == "HEAD" else revision
        for names in (self.branches, self.tags):
            if revision in names:
                return names[revision]
        if revision in self.commits:
            return revision
        raise HubError(404, f"no revision {revision}", "RevisionNotFound")

    def tree(self, revision: str) -> dict[str, File]:
        """Files at a revision."""
        return self.commits[self.resolve(revision)].tree

    def open_pull(self, title: str, onto: str, status: str) -> int:
        """Open a pull request; its number."""
        self.pulls.append({"title": title, "status": status, "onto": onto})
        self.branches[f"refs/pr/{len(self.pulls)}"] = self.branches[onto]
        return len(self.pulls)

    def append(self, branch: str, title: str, tree: dict[str, File]) -> str:
        """Put a commit on a branch."""
        parent = self.branches.get(branch, "")
        listing = json.dumps([parent, title, len(self.commits), sorted((p, f.oid) for p, f in tree.items())])
        oid = hashlib.sha1(listing.encode()).hexdigest()  # noqa: S324
        self.commits[oid] = Commit(parent, title, tree)
        self.branches[branch] = oid
        return oid


def blob_id(data: bytes) -> str:
    """The git id of a file's bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


def pointer(sha256: str, size: int) -> bytes:
    """The Git-LFS pointer that stands for a large object."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class HubStore:
    """All repositories under one folder; survives a restart."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        for name in ("lfs", "blobs", "parts"):
            (root / name).mkdir(parents=True, exist_ok=True)
        if (root / "state.json").exists():
            self._read()

    def _read(self) -> None:
        state = json.loads((self.root / "state.json").read_text(encoding="utf-8"))
        self.collections = state["collections"]
        for raw in state["repos"]:
            commits = {
                oid: Commit(c["parent"], c["title"], {path: File(**file) for path, file in c["tree"].items()})
                for oid, c in raw.pop("commits").items()
            }
            self.repos[raw["type"], raw["id"]] = Repo(**raw, commits=commits)

    def save(self) -> None:
        """Write the state, whole or not at all."""
        temporary = self.root / "state.json.tmp"
        state = {"repos": [asdict(repo) for repo in self.repos.values()], "collections": self.collections}
        temporary.write_text(json.dumps(state), encoding="utf-8", newline="\n")
        temporary.replace(self.root / "state.json")

    def get(self, kind: str, repo_id: str, role: str) -> Repo:
        """A repository that the caller may see."""
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and not role):
            raise HubError(404 if role else 401, "Repository not found", "RepoNotFound")
        if repo.disabled:
            raise HubError(403, "Access to this resource is disabled.")
        return repo

    def create(self, kind: str, repo_id: str, private: bool) -> Repo:
        """A new repository with its first commit."""
        if (kind, repo_id) in self.repos:
            raise HubError(409, "You already created this model repo")
        repo = Repo(repo_id, kind, private)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
        repo.append("main", "initial commit", {".gitattributes": self.put_blob(attributes)})
        self.repos[kind, repo_id] = repo
        self.save()
        return repo

    def put_blob(self, data: bytes) -> File:
        """Keep a regular file."""
        oid = blob_id(data)
        (self.root / "blobs" / oid).write_bytes(data)
        return File(len(data), oid)

    def put_object(self, sha256: str, data: bytes) -> None:
        """Keep a large object whose hash is right."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise HubError(400, "content does not match the object id")
        temporary = self.root / "lfs" / (sha256 + ".tmp")
        temporary.write_bytes(data)
        temporary.replace(self.root / "lfs" / sha256)

    def has_object(self, sha256: str) -> bool:
        """Whether a large object is whole and here."""
        return (self.root / "lfs" / sha256).exists()

    def path_of(self, file: File) -> Path:
        """Where a file's bytes lie."""
        return self.root / ("lfs" if file.lfs else "blobs") / (file.lfs or file.oid)

    def read(self, kind: str, repo_id: str, path: str, revision: str = "main") -> bytes:
        """The bytes of a file, for tests."""
        return self.path_of(self.repos[kind, repo_id].tree(revision)[path]).read_bytes()

    def commit(self, repo: Repo, branch: str, lines: list[dict[str, Any]], *, trusting: bool = False) -> str:
        """Apply an ndjson commit to a branch; `trusting` large objects to be in another store."""
        if branch not in repo.branches:
            raise HubError(404, f"no branch {branch}", "RevisionNotFound")
        tree = dict(repo.tree(branch))
        title = ""
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    title = value["summary"]
                    if value.get("parentCommit") not in (None, repo.branches[branch]):
                        raise HubError(412, "A commit has happened since. Please refresh and try again.")
                case "file":
                    tree[value["path"]] = self.put_blob(base64.b64decode(value["content"]))
                case "lfsFile":
                    there = self.has_object(value["oid"])
                    if not there and not trusting:
                        raise HubError(400, f"object {value['oid']} of {value['path']} was not uploaded")
                    size = (self.root / "lfs" / value["oid"]).stat().st_size if there else value["size"]
                    tree[value["path"]] = File(size, blob_id(pointer(value["oid"], size)), value["oid"])
                case "deletedFile":
                    if tree.pop(value["path"], None) is None:
                        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
                case "deletedFolder":
                    tree = {path: file for path, file in tree.items() if not path.startswith(value["path"])}
                case other:
                    raise HubError(400, f"unknown operation {other}")
        oid = repo.append(branch, title, tree)
        self.save()
        return oid

    def card(self, repo: Repo, revision: str = "main") -> dict[str, Any]:
        """The metadata block of the README."""
        readme = repo.tree(revision).get("README.md")
        text = self.path_of(readme).read_text(encoding="utf-8") if readme else ""
        parts = text.split("---\n", 2)
        block = yaml.safe_load(parts[1]) if text.startswith("---\n") and len(parts) == 3 else None
        return block if isinstance(block, dict) else {}
