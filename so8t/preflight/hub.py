"""The Hub: does it answer, may the token do what is left to do, and which licence has the base."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from so8t.collect.config import HubBase, HubQuery, HubSource, LocalBase
from so8t.collect.download import endpoint
from so8t.plan.pin import datasets, repositories
from so8t.preflight.finding import Finding
from so8t.preflight.scene import Scene
from so8t.section import UNPINNED
from so8t.step import Ref
from so8t.upload.config import HubTarget

WRITE, COLLECT = "repo.write", "collection.write"
HUB = "https://huggingface.co"
TOKENS = f"{HUB}/settings/tokens"
WAITS = "nothing where it comes back: the steps wait for it"


@dataclass(frozen=True)
class Answer:
    """Of `whoami-v2`. `status` 0: none came, or none was asked for (`why`)."""

    status: int = 0
    why: str = ""
    time: datetime | None = None
    token: bool = False
    identity: dict[str, Any] = field(default_factory=dict)
    offline: bool = False  # told so by HF_HUB_OFFLINE


def users(scene: Scene) -> list[str]:
    """What is left to be done over the Hub."""
    sources = {
        Ref("collect.source", s.name) for s in scene.config.collect.sources if isinstance(s, HubSource | HubQuery)
    }
    refs = sources | {Ref("collect.questions", place.rpartition(".")[2]) for place in datasets(scene.config)}
    if isinstance(scene.config.base, HubBase):
        refs.add(Ref("collect.base"))
    refs.add(Ref("collect.tower", "vision"))
    if isinstance(scene.config.upload.target, HubTarget):
        refs.add(Ref("upload"))
    return sorted(str(ref) for ref in refs if ref in scene.left)


def ask(scene: Scene) -> Answer:
    """Ask who we are, where anything that is left to do needs the Hub; one request, which also tells the time."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import build_hf_headers, get_session

    token = get_token()
    if not users(scene):
        return Answer(why="nothing that is left to do needs the Hub", token=token is not None)
    if constants.is_offline_mode():
        return Answer(why="HF_HUB_OFFLINE is set", token=token is not None, offline=True)
    url = f"{hub_url()}/api/whoami-v2"
    try:
        answer = get_session().get(
            url, headers=build_hf_headers(token=token), timeout=scene.config.preflight.network_timeout_s
        )
        identity = answer.json() if answer.status_code == 200 else {}
    except (HTTPError, OSError, ValueError) as error:
        return Answer(why=f"{hub_shown()} did not answer ({type(error).__name__})", token=token is not None)
    return Answer(answer.status_code, "", _time(answer.headers.get("date")), token is not None, identity)


def hub_url() -> str:
    """Where the Hub is."""
    return (endpoint() or HUB).rstrip("/")


def hub_shown() -> str:
    """Its address for logs and pages: without the name and password that a mirror may want in it."""
    return re.sub(r"//[^/@]*@", "//", hub_url())


def _time(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text or "").astimezone(UTC)
    except ValueError:
        return None


def check_reached(scene: Scene, answer: Answer) -> Finding:
    """Unreachable is no reason to stop a run: after a power cut the router boots too."""
    names = users(scene)
    if not names:
        return Finding("hub", "not looked at", answer.why)
    wanted = f"the Hub, for {', '.join(names)}"
    if answer.offline:
        return Finding("hub", "fail", answer.why, wanted, "unset HF_HUB_OFFLINE")
    if not answer.status or answer.status >= 500 or answer.status == 429:
        found = answer.why or f"{hub_shown()} answers with status {answer.status}"
        return Finding("hub", "fail", found, wanted, f"look at network, proxy and HF_ENDPOINT; {WAITS}", passing=True)
    return Finding("hub", "ok", f"{hub_shown()} answers; needed for {', '.join(names)}")


def check_token(scene: Scene, answer: Answer) -> Finding:
    """Whether it is accepted, and may write where the result goes."""
    target = scene.config.upload.target
    writes = isinstance(target, HubTarget) and Ref("upload") in scene.left
    if not answer.token:
        if writes:
            return Finding("token", "fail", "none", "one that may write: upload.target.kind is hub",
                           f"set HF_TOKEN or run `hf auth login`; make one at {TOKENS}")  # fmt: skip
        reads = users(scene)
        return Finding("token", "warn" if reads else "not looked at",
                       "none: gated and private repositories are out of reach" if reads else f"none set; {answer.why}")  # fmt: skip
    if not answer.status:
        return Finding("token", "not looked at", f"one is set; {answer.why}")
    if answer.status in (401, 403):
        return Finding(
            "token",
            "fail",
            f"the Hub refuses it (status {answer.status})",
            "a valid one",
            f"make a new one at {TOKENS}",
        )
    if answer.status != 200:
        return Finding("token", "not looked at", f"one is set; the Hub answers with status {answer.status}")
    name, role = str(answer.identity.get("name", "")), str(_access(answer).get("role", ""))
    if not writes:
        return Finding("token", "ok", f"{name}'s, role {role}; nothing that is left to do writes")
    assert isinstance(target, HubTarget)
    lacking = [f"{repo}: {why}" for repo in target.repo_ids().values() if (why := _refusal(answer, repo))]
    if target.collection and role == "fineGrained" and COLLECT not in _scopes(answer, target.repo_id):
        lacking.append(f"the collection {target.collection!r}: no {COLLECT}")
    found = f"{name}'s, role {role}"
    if lacking:
        return Finding("token", "fail", f"{found}; it may not write {'; '.join(lacking)}",
                       f"write access to {', '.join(target.repo_ids().values())}",
                       f"make a token that may write there at {TOKENS}, or mend upload.target.repo_id")  # fmt: skip
    return Finding("token", "ok", f"{found}; may write {', '.join(target.repo_ids().values())}")


def _access(answer: Answer) -> dict[str, Any]:
    access = answer.identity.get("auth", {}).get("accessToken", {})
    return access if isinstance(access, dict) else {}


def _refusal(answer: Answer, repo: str) -> str:
    """Why the token may not write a repository; "" where it may. The Hub has the last word at the upload."""
    owner, role = repo.split("/")[0], _access(answer).get("role")
    roles = {org.get("name"): org.get("roleInOrg", "write") for org in answer.identity.get("orgs", [])}
    if role == "read":
        return "the token only reads"
    if role == "fineGrained":
        return "" if WRITE in _scopes(answer, repo) else f"no {WRITE} among its permissions there"
    if owner != answer.identity.get("name") and owner not in roles:
        return f"{owner} is neither you nor an organisation of yours"
    return f"your role in {owner} is read" if roles.get(owner) == "read" else ""


def _scopes(answer: Answer, repo: str) -> set[str]:
    """A fine-grained token's permissions for a repository: its own, and those for all of its owner's."""
    fine = _access(answer).get("fineGrained", {})
    found = set(fine.get("global", []))
    for scope in fine.get("scoped", []):
        if scope.get("entity", {}).get("name") in (repo, repo.split("/")[0]):
            found |= set(scope.get("permissions", []))
    return found


def check_pins(scene: Scene) -> Finding | None:
    """Repositories that no step fetches, since no commit is named; None where nothing comes from the Hub."""
    named: dict[Ref, tuple[str, str]] = {}
    for place, model in repositories(scene.config).items():
        named[Ref("collect.base") if place == "base" else Ref("collect.tower", "vision")] = (model.id, model.revision)
    for place, one in datasets(scene.config).items():
        part = one.name if isinstance(one, HubSource) else place.rpartition(".")[2]
        named[Ref("collect.source" if isinstance(one, HubSource) else "collect.questions", part)] = (
            one.id,
            one.revision,
        )
    if not named:
        return None
    loose = [name for ref, (name, revision) in named.items() if revision == UNPINNED and ref in scene.left]
    if loose:
        return Finding(
            "revisions", "fail", f"{len(loose)} not pinned: {', '.join(loose)}", "a commit (40 hex digits) for each",
            "`so8t plan --pin` prints the newest as settings; look at them, then put them into the config",
        )  # fmt: skip
    return Finding("revisions", "ok", f"{len(named)} named by their commits")


def check_licence(scene: Scene, answer: Answer) -> Finding:
    """The base's, which the result will carry: from the finished base, its folder, or its card on the Hub."""
    found = _stated(scene, answer)
    if isinstance(found, Finding):
        return found
    stated, where = found
    asked = scene.config.upload.licence
    if not stated:
        return Finding("licence", "fail" if Ref("upload") in scene.left else "warn", f"unknown: {where} states none",
                       "a licence on the base's card: upload refuses a base without one", "choose a base that states one")  # fmt: skip
    if asked not in (None, stated):
        return Finding(
            "licence", "fail", f"{stated} ({where})", f"{asked}, as upload.licence says", "leave upload.licence out"
        )
    if stated not in scene.config.collect.licences:
        return Finding("licence", "warn", f"{stated} ({where})", f"one of {', '.join(scene.config.collect.licences)}",
                       "read its terms: the published model carries it")  # fmt: skip
    return Finding("licence", "ok", f"{stated} ({where})")


def _stated(scene: Scene, answer: Answer) -> tuple[str, str] | Finding:
    from so8t.collect.basemodel.files import card_licence
    from so8t.step import plan

    base = scene.config.base
    made = scene.store.peek("collect.base", plan(Ref("collect.base"), scene.config, scene.store, read_only=True).key)
    if made is not None:
        return str(made.manifest.facts.get("licence") or ""), "the collected base"
    if isinstance(base, LocalBase):
        return card_licence(base.path) or "", f"the card in {base.path}"
    if not isinstance(base, HubBase):
        return "mit", "the demo's own base"
    if base.revision == UNPINNED:
        return Finding("licence", "not looked at", f"{base.id} is not pinned to a commit")
    if not answer.status:
        return Finding("licence", "not looked at", answer.why)
    return _on_the_hub(base, scene.config.preflight.network_timeout_s)


def _on_the_hub(base: HubBase, timeout_s: float) -> tuple[str, str] | Finding:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )  # fmt: skip

    from so8t.collect.licence import disagreement, normal_form

    try:
        info = HfApi(endpoint=hub_url()).model_info(base.id, revision=base.revision, timeout=timeout_s)
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        return Finding("licence", "fail", f"{base.id} at {base.revision[:12]}: {type(error).__name__}",
                       "a base that this token may read, at a commit that exists",
                       "accept its terms on its page and set HF_TOKEN, or mend base.id and base.revision")  # fmt: skip
    except (HTTPError, OSError) as error:
        return Finding("licence", "not looked at", f"the Hub did not answer for {base.id} ({type(error).__name__})")
    card = normal_form((info.card_data or {}).get("license"))
    tags = normal_form(_licence_tags(info.tags or []))
    if contrary := disagreement({"card": card, "tags": tags}):
        return Finding(
            "licence", "warn", f"{base.id}: {contrary}", "one statement", "read its card and its licence file"
        )
    return card, f"{base.id} at {base.revision[:12]}"


def _licence_tags(tags: Iterable[str]) -> list[str]:
    return [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
