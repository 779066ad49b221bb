"""The optional collection on the Hub that the published repositories are put into."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from huggingface_hub import Collection, HfApi

from so8t.errors import InputError
from so8t.upload.retry import Backoff, patiently

T = TypeVar("T")


class Collector:
    """One collection by its title; a run that was killed, or whose answer was lost, finds what is there."""

    def __init__(
        self, api: HfApi, owner: str, title: str, private: bool, backoff: Backoff, report: Callable[[str], None]
    ) -> None:
        self.api, self.owner, self.title, self.private = api, owner, title, private
        self.backoff, self.report = backoff, report

    def gather(self, repo_ids: Iterable[str]) -> str:
        """Put the repositories into the collection and look whether they are in it; gives its address."""
        found = self._find() or self._patiently(self._create, "making the collection", self._find)
        if self.private and not found.private:
            raise InputError(
                f"the collection {self.title!r} exists and is public",
                "a private one, because upload.target.private is true",
                "choose another upload.target.collection, or set upload.target.private=false",
            )
        for repo_id in repo_ids:
            if repo_id not in self._members(found.slug):
                self._patiently(partial(self._add, found.slug, repo_id), f"putting {repo_id} into the collection")
        return str(found.url)

    def _patiently(self, action: Callable[[], T], doing: str, reconcile: Callable[[], T | None] = lambda: None) -> T:
        return patiently(action, doing, self.backoff, self.report, reconcile)

    def _find(self) -> Collection | None:
        def look() -> tuple[Collection | None]:
            listed = self.api.list_collections(owner=self.owner)
            return (next((c for c in listed if c.title == self.title), None),)

        return self._patiently(look, "looking for the collection")[0]

    def _create(self) -> Collection:
        return self.api.create_collection(self.title, namespace=self.owner, private=self.private, exists_ok=True)

    def _members(self, slug: str) -> set[str]:
        """A listing of collections shows only some items of each."""
        found = self._patiently(lambda: self.api.get_collection(slug), "reading the collection")
        return {item.item_id for item in found.items if item.item_type == "model"}

    def _add(self, slug: str, repo_id: str) -> None:
        self.api.add_collection_item(slug, repo_id, "model", exists_ok=True)
