"""The routes of the test Hub: one function each, from the store to the answer."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import yaml

from tests.hub.store import LFS_SUFFIXES, ORGANISATIONS, REGULAR_MAX_BYTES, USER, File, HubError, Repo, pointer

if TYPE_CHECKING:
    from tests.hub.server import HubServer

DATE = "2025-01-01T00:00:00.000Z"
ID = r"(?P<id>[^/]+/[^/]+?)"
KIND = r"(?P<kind>models|datasets)"
PREFIX = r"(?P<prefix>datasets/)?"


@dataclass
class Answer:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] | None = None


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


@dataclass
class Context:
    """What a route function gets: the token's role, the named parts of the path, query and headers (lower case)."""

    hub: "HubServer"
    method: str
    role: str
    named: dict[str, str]
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        return self.named.get("kind") or ("datasets" if self.named.get("prefix") else "models")

    def asked(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        return self.asked(name).lower() in ("1", "true")

    def repo(self, *, write: bool = False) -> Repo:
        """The repository of the path; with `write` the token must allow it."""
        repo = self.hub.store.get(self.kind, self.named["id"], self.role)
        if write:
            self.need_write()
        return repo

    def need_write(self) -> None:
        if not self.role:
            raise HubError(401, "Invalid username or password.")
        if self.role != "write":
            raise HubError(403, "You don't have the rights to write here")


def whoami(c: Context, body: bytes) -> Answer:
    if not c.role:
        raise HubError(401, "Invalid username or password.")
    organisations = [{"name": name, "type": "org"} for name in ORGANISATIONS]
    scopes = {"fineGrained": c.hub.scopes} if c.role == "fineGrained" else {}
    token = {"accessToken": {"displayName": "test", "role": c.role, **scopes}}
    return as_json({"type": "user", "name": USER, "orgs": organisations, "auth": {"type": "access_token", **token}})


def create(c: Context, body: bytes) -> Answer:
    c.need_write()
    asked = json.loads(body)
    owner = asked.get("organization") or USER
    if owner not in (USER, *ORGANISATIONS):
        raise HubError(403, f"You don't have the rights to create a repo under {owner}")
    kind = (asked.get("type") or "model") + "s"
    repo_id = f"{owner}/{asked['name']}"
    c.hub.store.create(kind, repo_id, private=asked.get("visibility", "private") != "public")
    prefix = "" if kind == "models" else f"{kind}/"
    return as_json({"url": f"{c.hub.url}/{prefix}{repo_id}", "name": repo_id, "id": repo_id})


def settings(c: Context, body: bytes) -> Answer:
    repo, asked = c.repo(write=True), json.loads(body)
    repo.private = asked.get("private", repo.private)
    if "visibility" in asked:
        repo.private = asked["visibility"] != "public"
    repo.gated = asked.get("gated", repo.gated)
    c.hub.store.save()
    return as_json({"visibility": "private" if repo.private else "public", "gated": repo.gated})


def validate_yaml(c: Context, body: bytes) -> Answer:
    content = json.loads(body)["content"]
    errors = []
    try:
        block = yaml.safe_load(content.split("---\n", 2)[1]) if content.startswith("---\n") else {}
        if not isinstance(block, dict):
            errors.append({"message": "metadata is no mapping"})
    except (yaml.YAMLError, IndexError) as error:
        errors.append({"message": str(error)})
    return as_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def preupload(c: Context, body: bytes) -> Answer:
    tree = c.repo(write=True).tree(c.named["rev"])
    files = []
    for file in json.loads(body)["files"]:
        large = file["path"].endswith(LFS_SUFFIXES) or file["size"] > REGULAR_MAX_BYTES
        there = tree.get(file["path"])
        known = {"oid": there.lfs or there.oid} if there else {}
        mode = "lfs" if large else "regular"
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
    return as_json({"files": files})


def lfs_batch(c: Context, body: bytes) -> Answer:
    c.repo(write=True)
    objects = []
    for wanted in json.loads(body)["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        if c.hub.store.has_object(oid):
            objects.append({"oid": oid, "size": size})
            continue
        place = f"{c.hub.url}/__lfs/{oid}"
        parts = -(-size // c.hub.part_bytes)
        upload: dict[str, Any] = {"href": place}
        if parts > 1:
            urls = {f"{number:05d}": f"{place}/{number}" for number in range(1, parts + 1)}
            upload = {"href": f"{place}/complete", "header": {"chunk_size": str(c.hub.part_bytes), **urls}}
        verify = {"href": f"{c.hub.url}/{c.named.get('prefix', '')}{c.named['id']}.git/info/lfs/objects/verify"}
        objects.append({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
    return as_json({"transfer": "multipart", "objects": objects})


def lfs_put(c: Context, body: bytes) -> Answer:
    oid, part = c.named["oid"], c.named.get("part")
    if part is None:
        c.hub.store.put_object(oid, body)
    else:
        (c.hub.store.root / "parts" / f"{oid}.{int(part):05d}").write_bytes(body)
    return Answer(200, headers={"ETag": f'"{part or oid}"'})


def lfs_complete(c: Context, body: bytes) -> Answer:
    oid, listed = c.named["oid"], json.loads(body)["parts"]
    if any(part["etag"].strip('"') != str(part["partNumber"]) for part in listed):
        raise HubError(400, "wrong etag")
    paths = [c.hub.store.root / "parts" / f"{oid}.{part['partNumber']:05d}" for part in listed]
    c.hub.store.put_object(oid, b"".join(path.read_bytes() for path in paths))
    for path in paths:
        path.unlink()
    return as_json({"success": True})


def lfs_verify(c: Context, body: bytes) -> Answer:
    asked = json.loads(body)
    path = c.hub.store.root / "lfs" / asked["oid"]
    if not path.exists() or path.stat().st_size != asked["size"]:
        raise HubError(404, "object is not here")
    return as_json({})


def commit(c: Context, body: bytes) -> Answer:
    repo, branch = c.repo(write=True), c.named["rev"]
    lines = [json.loads(line) for line in body.splitlines() if line]
    more = {}
    if c.flag("create_pr"):
        number = repo.open_pull(
            next(line["value"]["summary"] for line in lines if line["key"] == "header"), branch, "open"
        )
        branch = f"refs/pr/{number}"
        more["pullRequestUrl"] = f"{c.hub.url}/{repo.id}/discussions/{number}"
    oid = c.hub.store.commit(repo, branch, lines, trusting=c.hub.xet is not None)
    return as_json({"success": True, "commitOid": oid, "commitUrl": f"{c.hub.url}/{repo.id}/commit/{oid}", **more})


def xet_token(c: Context, body: bytes) -> Answer:
    """Leads hf_xet to its own local store, which it has for tests."""
    c.repo(write=True)
    if c.hub.xet is None:
        raise HubError(404, "no xet here")
    token = {"casUrl": f"local://{c.hub.xet}", "accessToken": "-", "exp": 4_000_000_000}
    names = {"X-Xet-Cas-Url": "casUrl", "X-Xet-Access-Token": "accessToken", "X-Xet-Token-Expiration": "exp"}
    return as_json(token, headers={header: str(token[name]) for header, name in names.items()})


def entry(path: str, file: File) -> dict[str, Any]:
    large = {"lfs": {"oid": file.lfs, "size": file.size, "pointerSize": 134}} if file.lfs else {}
    return {"type": "file", "path": path, "size": file.size, "oid": file.oid, **large}


def tree(c: Context, body: bytes) -> Answer:
    files, under, deep = c.repo().tree(c.named["rev"]), c.named.get("dir", ""), c.flag("recursive")
    inside = {path: file for path, file in sorted(files.items()) if path.startswith(under + "/" if under else "")}
    if under and not inside:
        raise HubError(404, f"no folder {under}", "EntryNotFound")
    depth = len(under.split("/")) if under else 0
    parents = {"/".join(path.split("/")[:end]) for path in inside for end in range(depth + 1, path.count("/") + 1)}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
        for folder in sorted(parents)
        if deep or folder.count("/") == depth
    ]
    entries += [entry(path, file) for path, file in inside.items() if deep or path.count("/") == depth]
    start = int(c.asked("cursor", "0"))
    following = start + c.hub.page_entries
    query = urlencode({"recursive": c.asked("recursive"), "cursor": following})
    place = f"{c.hub.url}/api/{c.kind}/{c.named['id']}/tree/{c.named['rev']}{'/' + under if under else ''}"
    link = {"Link": f'<{place}?{query}>; rel="next"'}
    return as_json(entries[start:following], headers=link if following < len(entries) else None)


def paths_info(c: Context, body: bytes) -> Answer:
    files = c.repo().tree(c.named["rev"])
    if "json" in c.headers.get("content-type", ""):
        paths = json.loads(body)["paths"]
    else:
        paths = parse_qs(body.decode()).get("paths", [])
    return as_json([entry(path, files[path]) for path in paths if path in files])


def refs(c: Context, body: bytes) -> Answer:
    repo = c.repo()

    def shape(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in sorted(names.items())
        ]

    plain = {name: oid for name, oid in repo.branches.items() if not name.startswith("refs/pr/")}
    pulls = [
        {"name": name, "ref": name, "targetCommit": oid}
        for name, oid in sorted(repo.branches.items())
        if name not in plain
    ]
    more = {"pullRequests": pulls} if c.flag("include_prs") else {}
    return as_json({"branches": shape("heads", plain), "tags": shape("tags", repo.tags), "converts": [], **more})


def branch(c: Context, body: bytes) -> Answer:
    repo, name = c.repo(write=True), c.named["name"]
    if c.method == "DELETE":
        if repo.branches.pop(name, None) is None:
            raise HubError(404, f"no branch {name}", "RevisionNotFound")
    elif name in repo.branches:
        raise HubError(409, "Reference already exists")
    else:
        repo.branches[name] = repo.resolve(json.loads(body or b"{}").get("startingPoint", "main"))
    c.hub.store.save()
    return as_json({})


def tag(c: Context, body: bytes) -> Answer:
    repo, name = c.repo(write=True), c.named["name"]
    if c.method == "DELETE":
        if repo.tags.pop(name, None) is None:
            raise HubError(404, f"no tag {name}", "RevisionNotFound")
    else:
        asked = json.loads(body)["tag"]
        if asked in repo.tags:
            raise HubError(409, "Tag reference exists already")
        repo.tags[asked] = repo.resolve(name)
    c.hub.store.save()
    return as_json({})


def describe(c: Context, repo: Repo, revision: str = "main", *, blobs: bool = False) -> dict[str, Any]:
    card = c.hub.store.card(repo, revision)
    siblings = []
    for path, file in sorted(repo.tree(revision).items()):
        detail: dict[str, Any] = {"size": file.size, "blobId": file.oid} if blobs else {}
        if blobs and file.lfs:
            detail["lfs"] = {"sha256": file.lfs, "size": file.size, "pointerSize": 134}
        siblings.append({"rfilename": path, **detail})
    licence = card.get("license")
    marks = [f"license:{name}" for name in (licence if isinstance(licence, list) else [licence]) if name]
    marks = marks if repo.licence_tags is None else [f"license:{name}" for name in repo.licence_tags]
    return {
        "_id": "0" * 24,
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.split("/")[0],
        "sha": repo.resolve(revision),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "cardData": card,
        "tags": [*card.get("tags", []), *marks],
        "siblings": siblings,
        "lastModified": DATE,
        "createdAt": DATE,
    }


def info(c: Context, body: bytes) -> Answer:
    return as_json(describe(c, c.repo(), c.named.get("rev", "main"), blobs=c.flag("blobs")))


def listing(c: Context, body: bytes) -> Answer:
    kept = sorted(c.hub.store.repos.items())
    repos = [describe(c, repo) for (kind, _), repo in kept if kind == c.kind and (c.role or not repo.private)]
    wanted, text, author = set(c.query.get("filter", [])), c.asked("search").lower(), c.asked("author")
    fit = [r for r in repos if wanted <= set(r["tags"]) and text in r["id"].lower() and author in ("", r["author"])]
    start, limit = int(c.asked("cursor", "0")), int(c.asked("limit", "1000"))
    query = [("filter", name) for name in sorted(wanted)]
    query += [("search", text), ("author", author), ("limit", str(limit)), ("cursor", str(start + limit))]
    link = {"Link": f'<{c.hub.url}/api/{c.kind}?{urlencode(query)}>; rel="next"'}
    return as_json(fit[start : start + limit], headers=link if start + limit < len(fit) else None)


def resolve(c: Context, body: bytes) -> Answer:
    repo = c.repo()
    if repo.gated and c.role != "write":
        raise HubError(403, "Access to this repo is restricted", "GatedRepo")
    file = repo.tree(c.named["rev"]).get(c.named["path"])
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound")
    data = c.hub.store.path_of(file).read_bytes()
    etag = f'"{file.lfs or file.oid}"'
    headers = {
        "X-Repo-Commit": repo.resolve(c.named["rev"]),
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if file.lfs:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size)}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", c.headers.get("range", ""))
    if wanted is None:
        return Answer(200, data, {**headers, "Content-Length": str(len(data))})
    first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
    if first >= len(data):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
    part = data[first : last + 1]
    span = {"Content-Length": str(len(part)), "Content-Range": f"bytes {first}-{last}/{len(data)}"}
    return Answer(206, part, {**headers, **span})


def raw(c: Context, body: bytes) -> Answer:
    """As git keeps it: the pointer in place of a large object."""
    file = c.repo().tree(c.named["rev"]).get(c.named["path"])
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound")
    return Answer(200, pointer(file.lfs, file.size) if file.lfs else c.hub.store.path_of(file).read_bytes())


def fault(c: Context, body: bytes) -> Answer:
    c.hub.add_fault(**json.loads(body))
    return as_json({})


def log(c: Context, body: bytes) -> Answer:
    return as_json([vars(request) for request in c.hub.requests])


# Name, methods, path, function; the first that fits answers.
ROUTES: list[tuple[str, str, str, Callable[[Context, bytes], Answer]]] = [
    ("fault", "POST", r"/__fault", fault),
    ("log", "GET", r"/__log", log),
    ("lfs-complete", "POST", r"/__lfs/(?P<oid>[0-9a-f]{64})/complete", lfs_complete),
    ("lfs-put", "PUT", r"/__lfs/(?P<oid>[0-9a-f]{64})(/(?P<part>\d+))?", lfs_put),
    ("whoami", "GET", r"/api/whoami-v2", whoami),
    ("create", "POST", r"/api/repos/create", create),
    ("validate-yaml", "POST", r"/api/validate-yaml", validate_yaml),
    ("listing", "GET", rf"/api/{KIND}", listing),
    ("settings", "PUT", rf"/api/{KIND}/{ID}/settings", settings),
    ("preupload", "POST", rf"/api/{KIND}/{ID}/preupload/(?P<rev>[^/]+)", preupload),
    ("commit", "POST", rf"/api/{KIND}/{ID}/commit/(?P<rev>[^/]+)", commit),
    ("xet-token", "GET", rf"/api/{KIND}/{ID}/xet-write-token/(?P<rev>[^/]+)", xet_token),
    ("tree", "GET", rf"/api/{KIND}/{ID}/tree/(?P<rev>[^/]+)(/(?P<dir>.+))?", tree),
    ("paths-info", "POST", rf"/api/{KIND}/{ID}/paths-info/(?P<rev>[^/]+)", paths_info),
    ("refs", "GET", rf"/api/{KIND}/{ID}/refs", refs),
    ("branch", "POST DELETE", rf"/api/{KIND}/{ID}/branch/(?P<name>[^/]+)", branch),
    ("tag", "POST DELETE", rf"/api/{KIND}/{ID}/tag/(?P<name>[^/]+)", tag),
    ("info", "GET", rf"/api/{KIND}/{ID}(/revision/(?P<rev>[^/]+))?", info),
    ("lfs-batch", "POST", rf"/{PREFIX}{ID}\.git/info/lfs/objects/batch", lfs_batch),
    ("lfs-verify", "POST", rf"/{PREFIX}{ID}\.git/info/lfs/objects/verify", lfs_verify),
    ("raw", "GET HEAD", rf"/{PREFIX}{ID}/raw/(?P<rev>[^/]+)/(?P<path>.+)", raw),
    ("resolve", "GET HEAD", rf"/{PREFIX}{ID}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", resolve),
]
