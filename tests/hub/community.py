"""Pull requests and collections of the test Hub."""

import json
from collections.abc import Callable
from typing import Any

from tests.hub.routes import DATE, ID, KIND, Answer, Context, as_json
from tests.hub.store import ORGANISATIONS, USER, HubError, Repo


def pull(c: Context, repo: Repo, number: int) -> dict[str, Any]:
    """One pull request as the Hub describes it."""
    found = repo.pulls[number - 1]
    return {
        "num": number, "title": found["title"], "status": found["status"], "isPullRequest": True, "createdAt": DATE,
        "author": {"name": USER}, "repo": {"name": repo.id, "type": repo.type.removesuffix("s")}, "events": [],
        "filesWithConflicts": [], "changes": {"base": f"refs/heads/{found['onto']}"}, "diffUrl": "",
    }  # fmt: skip


def discussions(c: Context, body: bytes) -> Answer:
    repo = c.repo(write=c.method == "POST")
    if c.method == "GET":
        listed = [pull(c, repo, number) for number in range(1, len(repo.pulls) + 1)]
        return as_json({"discussions": listed, "count": len(listed), "start": 0})
    asked = json.loads(body)
    if not asked.get("pullRequest"):
        raise HubError(400, "only pull requests are kept here")
    number = repo.open_pull(asked["title"], "main", "draft")
    c.hub.store.save()
    return as_json(pull(c, repo, number))


def discussion(c: Context, body: bytes) -> Answer:
    """Look at a pull request, change its status or merge it: all its commits become one on the branch it goes to."""
    repo, number, doing = c.repo(write=c.method == "POST"), int(c.named["num"]), c.named.get("doing")
    if not 1 <= number <= len(repo.pulls):
        raise HubError(404, "no such pull request")
    found = repo.pulls[number - 1]
    if doing == "status":
        found["status"] = json.loads(body)["status"]
    elif doing == "merge":
        if found["status"] != "open":
            raise HubError(400, f"the pull request is {found['status']}")
        repo.append(found["onto"], f"{found['title']} (#{number})", dict(repo.tree(f"refs/pr/{number}")))
        found["status"] = "merged"
    c.hub.store.save()
    event = {
        "id": "0",
        "type": "status-change",
        "createdAt": DATE,
        "author": {"name": USER},
        "data": {"status": found["status"]},
    }
    return as_json({"newStatus": event} if doing == "status" else pull(c, repo, number))


def collection_of(c: Context) -> dict[str, Any]:
    found = c.hub.store.collections.get(c.named["slug"])
    if found is None or (found["private"] and not c.role):
        raise HubError(404, "Collection not found")
    return found


def collections(c: Context, body: bytes) -> Answer:
    kept = c.hub.store.collections
    if c.method == "GET":
        shown = [one for one in kept.values() if c.asked("owner") in ("", one["owner"]["name"])]
        # A listing shows the first items alone.
        listed = [{**one, "items": one["items"][:1]} for one in shown if c.role or not one["private"]]
        return as_json([{name: value for name, value in one.items() if name != "position"} for one in listed])
    c.need_write()
    asked = json.loads(body)
    if asked["namespace"] not in (USER, *ORGANISATIONS):
        raise HubError(403, "You don't have the rights to create a collection there")
    slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-{len(kept):024x}"
    kept[slug] = {
        "slug": slug, "title": asked["title"], "owner": {"name": asked["namespace"], "type": "user"}, "items": [],
        "lastUpdated": DATE, "position": len(kept), "private": asked.get("private", False), "theme": "blue", "upvotes": 0,
        "description": asked.get("description"),
    }  # fmt: skip
    c.hub.store.save()
    return as_json(kept[slug])


def collection(c: Context, body: bytes) -> Answer:
    return as_json(collection_of(c))


def collection_items(c: Context, body: bytes) -> Answer:
    c.need_write()
    found, asked = collection_of(c), json.loads(body)["item"]
    c.hub.store.get(asked["type"] + "s", asked["id"], c.role)
    if any(item["id"] == asked["id"] for item in found["items"]):
        raise HubError(409, "Already in the collection")
    position = len(found["items"])
    found["items"].append({"_id": f"{position:024x}", "id": asked["id"], "type": asked["type"], "position": position})
    c.hub.store.save()
    return as_json(found)


SLUG = r"(?P<slug>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, str, Callable[[Context, bytes], Answer]]] = [
    ("discussions", "GET POST", rf"/api/{KIND}/{ID}/discussions", discussions),
    ("discussion", "GET POST", rf"/api/{KIND}/{ID}/discussions/(?P<num>\d+)(/(?P<doing>status|merge))?", discussion),
    ("collections", "GET", r"/api/collections", collections),
    ("create-collection", "POST", r"/api/collections", collections),
    ("collection-items", "POST", rf"/api/collections/{SLUG}/items", collection_items),
    ("collection", "GET", rf"/api/collections/{SLUG}", collection),
]
