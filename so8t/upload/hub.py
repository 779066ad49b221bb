"""The Hub target: staged, verified against the manifests, then made the main branch and tagged.

    repository (private) -> branch `staging-<content>` -> every hash compared -> the same commit on
    main -> compared again -> tag -> staging branch removed

The Hub has no merge of branches outside pull requests; the commit on main sends no large object,
because those are there already. Each part first looks what is there, so a run that was killed, or
whose answer was lost, goes on where it stood, and a second run sends nothing.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import GitRefs, RepoFile

from so8t.errors import InputError, StepFailed
from so8t.upload import sending
from so8t.upload.client import demand_hash, matches
from so8t.upload.config import HubTarget
from so8t.upload.repository import Entry
from so8t.upload.retry import Backoff, patiently

MAIN = "main"
# The Hub makes this file itself.
HUB_OWN = frozenset({".gitattributes"})
# Small files share a request; a large one has its own, so that progress shows and a retry repeats little.
LARGE_BYTES = 8 << 20

Report = Callable[[int, str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Receipt:
    """What the Hub holds afterwards."""

    url: str
    repo_id: str
    oid: str
    tag: str
    private: bool
    verified: int


class Publisher:
    """One publication of `entries` to the target's repository of one kind; `content` names it."""

    def __init__(
        self, api: HfApi, target: HubTarget, kind: str, entries: list[Entry], content: str, report: Report,
        backoff: Backoff,
    ) -> None:  # fmt: skip
        self.api, self.backoff = api, backoff
        self.repo_id, self.private, self.gated = target.repo_ids()[kind], target.private, target.gated
        self.entries, self.report = entries, report
        self.staging, self.tag = f"staging-{content[:12]}", f"content-{content[:12]}"
        self.done_bytes = 0
        self.sent: set[str] = set()

    def prepare(self) -> bool:
        """Make the repository where it is absent, or refuse it; give whether it is private. Nothing is sent yet."""
        private = self._repository()
        self._gate()
        return private

    def publish(self) -> Receipt:
        """Publish everything, or raise; safe to call again at any point."""
        private = self.prepare()
        if self._differences(MAIN):
            self._stage()
            self._commit(MAIN)
            self._demand(MAIN)
        oid = self._branches()[MAIN]
        self._tag(oid)
        self._demand(oid)
        self._unstage()
        return Receipt(f"{self.api.endpoint}/{self.repo_id}", self.repo_id, oid, self.tag, private, len(self.entries))

    def _patiently(self, action: Callable[[], T], doing: str, reconcile: Callable[[], T | None] = lambda: None) -> T:
        return patiently(action, doing, self.backoff, lambda text: self.report(self.done_bytes, text), reconcile)

    def _repository(self) -> bool:
        """Make the repository where it is absent; give whether it is private."""
        private = self._is_private()
        if private is None:
            self._patiently(self._create, f"making {self.repo_id}", lambda: self._is_private() is not None or None)
            private = self._is_private()
        if private is None:
            raise StepFailed(f"{self.repo_id} was made, but the Hub does not show it")
        # `create_repo(private=True, exist_ok=True)` would leave an existing public repository public.
        if self.private and not private:
            raise InputError(
                f"{self.repo_id} exists and is public",
                "a private repository, because upload.target.private is true",
                "choose another repo_id, make the repository private, or set upload.target.private=false",
            )
        return private

    def _gate(self) -> None:
        """Have readers ask for access before there is anything to read."""
        if self.gated:
            change = partial(self.api.update_repo_settings, self.repo_id, gated=self.gated)
            self._patiently(change, f"gating {self.repo_id}")

    def _create(self) -> bool:
        self.api.create_repo(self.repo_id, private=self.private)
        return True

    def _is_private(self) -> bool | None:
        """None where there is no such repository."""

        def look() -> tuple[bool | None]:
            try:
                return (bool(self.api.repo_info(self.repo_id).private),)
            except RepositoryNotFoundError:
                return (None,)

        return self._patiently(look, f"looking for {self.repo_id}")[0]

    def _stage(self) -> None:
        """Fill and verify the staging branch."""
        if self.staging not in self._branches():
            self._patiently(self._create_staging, "making the staging branch")
        if self._differences(self.staging):
            self._send_objects()
            self._commit(self.staging)
            self._demand(self.staging)

    def _create_staging(self) -> None:
        self.api.create_branch(self.repo_id, branch=self.staging, exist_ok=True)

    def _unstage(self) -> None:
        """Remove the staging branch, which nothing needs any more."""

        def remove() -> None:
            if self.staging in self._branches():
                self.api.delete_branch(self.repo_id, branch=self.staging)

        self._patiently(remove, "removing the staging branch")

    def _send_objects(self) -> None:
        """Send the large objects that the Hub lacks; it knows them by their hash."""
        small = [entry for entry in self.entries if entry.size_bytes < LARGE_BYTES]
        groups = [small, *([entry] for entry in self.entries if entry.size_bytes >= LARGE_BYTES)]
        for group in groups:
            name = group[0].path if len(group) == 1 else f"{len(group)} small files"
            self.report(self.done_bytes, f"sending {name}")
            with sending.heard(partial(self._told, group, name)) if len(group) == 1 else nullcontext():
                self._patiently(partial(self._send, group, name), f"sending {name}")
            self.done_bytes += sum(entry.size_bytes for entry in group)

    def _told(self, group: list[Entry], name: str, sent_bytes: int) -> None:
        """A large file takes hours on a slow line."""
        self.report(self.done_bytes + min(sent_bytes, group[0].size_bytes), f"sending {name}")

    def _send(self, group: list[Entry], name: str) -> None:
        """Send; the client hashes what it reads, and that must be what our manifests say."""
        operations = {entry.path: sending.Addition(entry.path, str(entry.source)) for entry in group}
        if len(group) == 1:
            operations[group[0].path].tell = partial(self._told, group, name)
        self.api.preupload_lfs_files(self.repo_id, additions=list(operations.values()), revision=self.staging)
        for entry in group:
            info = operations[entry.path].upload_info
            if info.is_hashed:
                demand_hash(entry, info.sha256.hex())
                self.sent.add(entry.path)

    def _addition(self, entry: Entry) -> CommitOperationAdd:
        """The operation that adds a file straight from its artifact; what was hashed here once is not hashed again."""
        operation = CommitOperationAdd(entry.path, str(entry.source))
        if entry.path in self.sent:
            operation.upload_info.sha256 = bytes.fromhex(entry.sha256)
        return operation

    def _commit(self, branch: str) -> None:
        """Make the branch's tree the repository in one commit."""

        def commit() -> bool:
            # The head is read before the tree: a commit by someone else in between is refused by the Hub (412).
            head = self._branches()[branch]
            remote = self._tree(branch)
            changed = [self._addition(entry) for entry in self.entries if not matches(remote.get(entry.path), entry)]
            strays = [CommitOperationDelete(path) for path in self._strays(remote)]
            if changed or strays:
                message = f"Publish {self.tag}"
                operations = [*strays, *changed]
                self.api.create_commit(
                    self.repo_id, operations, commit_message=message, revision=branch, parent_commit=head
                )
            return True

        self.report(self.done_bytes, f"committing to {branch}")
        self._patiently(commit, f"committing to {branch}", lambda: None if self._differences(branch) else True)

    def _tree(self, revision: str) -> dict[str, RepoFile]:
        """Files at a revision."""

        def read() -> dict[str, RepoFile]:
            listed = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision)
            return {item.path: item for item in listed if isinstance(item, RepoFile)}

        return self._patiently(read, f"listing {revision}")

    def _strays(self, remote: dict[str, RepoFile]) -> list[str]:
        return sorted(set(remote) - {entry.path for entry in self.entries} - HUB_OWN)

    def _differences(self, revision: str) -> list[str]:
        """Every path at a revision that is missing, extra, or has another size or hash than our manifests say."""
        remote = self._tree(revision)
        return [entry.path for entry in self.entries if not matches(remote.get(entry.path), entry)] + self._strays(
            remote
        )

    def _demand(self, revision: str) -> None:
        wrong = self._differences(revision)
        if wrong:
            named = ", ".join(wrong[:5])
            raise StepFailed(f"{self.repo_id} at {revision}: {len(wrong)} file(s) are not what was sent: {named}")

    def _refs(self) -> GitRefs:
        return self._patiently(lambda: self.api.list_repo_refs(self.repo_id), "listing branches")

    def _branches(self) -> dict[str, str]:
        return {branch.name: branch.target_commit for branch in self._refs().branches}

    def _tag(self, oid: str) -> None:
        """Tag the commit. An equal tag of an earlier run stays: its name says which content it has."""

        def tag() -> None:
            if self.tag not in {tag.name for tag in self._refs().tags}:
                self.api.create_tag(self.repo_id, tag=self.tag, revision=oid, exist_ok=True)

        self._patiently(tag, f"tagging {self.tag}")
        self._demand(self.tag)
