"""What an answer comes to: a page to keep, one that is set aside, a redirect, or a refusal; each with its reason."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

from so8t.collect.licence import SEPARATOR, decide, disagreement
from so8t.collect.web import claims, directives, extract
from so8t.collect.web.addresses import join, site_of
from so8t.collect.web.config import WebSource
from so8t.collect.web.decode import Decoded, Undecodable, decode
from so8t.collect.web.fetch import REDIRECTS, Answer
from so8t.collect.web.language import language_of

Kind = Literal["kept", "quarantined", "redirect", "refused", "failed", "unreachable"]
HTML = frozenset({"text/html", "application/xhtml+xml"})
PLAIN = frozenset({"text/plain"})
ACCEPT = "text/html,application/xhtml+xml,text/plain;q=0.8"
REDIRECTS_MAX = 5


@dataclass(frozen=True)
class Outcome:
    """The end of one URL. `links` are to be visited, `facts` are JSON-able evidence; only a kept page has `text`."""

    kind: Kind
    reason: str = ""
    links: tuple[str, ...] = ()
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def is_wanted(answer: Answer) -> bool:
    """Whether the body is worth reading, by status and headers."""
    return answer.status == 200 and (answer.media_type or "text/html") in HTML | PLAIN


def judge(answer: Answer, redirects: int, config: WebSource) -> Outcome:
    """Judge an answer that is not to be asked for again; `redirects` led to its URL."""
    facts: dict[str, Any] = {"status": answer.status, "content_type": answer.headers.get("content-type", "")[:200]}
    if answer.status in REDIRECTS:
        return _redirect(answer, redirects, config, facts)
    if answer.status != 200:
        return Outcome("refused", f"status {answer.status}", facts=facts)
    if not is_wanted(answer):
        return Outcome("refused", f"a page of type {answer.media_type[:60]}", facts=facts)
    facts |= {"sha256": hashlib.sha256(answer.body).hexdigest(), "size_bytes": len(answer.body)}
    try:
        decoded = decode(answer.body, answer.headers.get("content-type", ""))
        facts |= {"encoding": decoded.encoding, "encoding_by": decoded.how, "replaced": decoded.replaced}
        return _page(answer, decoded, config, facts)
    except (Undecodable, extract.Unreadable) as reason:
        return Outcome("quarantined", str(reason), facts=facts)


def _redirect(answer: Answer, redirects: int, config: WebSource, facts: dict[str, Any]) -> Outcome:
    target = join(answer.url, answer.headers.get("location", ""))
    if not answer.headers.get("location") or not target:
        return Outcome("refused", "a redirect to nowhere", facts=facts)
    facts["location"] = target
    if site_of(target, config.sites) is None:
        return Outcome("refused", "a redirect to a site that is not named", facts=facts)
    if redirects >= REDIRECTS_MAX:
        return Outcome("refused", f"more than {REDIRECTS_MAX} redirects", facts=facts)
    return Outcome("redirect", links=(target,), facts=facts)


def _page(answer: Answer, decoded: Decoded, config: WebSource, facts: dict[str, Any]) -> Outcome:
    agents = (config.agent, *config.also_heed)
    said = directives.of_headers(answer.headers, agents)
    tree = extract.parse(decoded.text) if answer.media_type not in PLAIN else None
    if tree is None:
        text = extract.tidy(decoded.text) if answer.media_type in PLAIN else ""
        page = extract.Page(text, "", "", (), ())
    else:
        page = extract.read(tree, answer.url, decoded.encoding)
        facts["claims"] = claims.claims(tree)
    inner = directives.of_metas(page.metas, agents)
    links = page.links if said.follow and inner.follow else ()
    links = tuple(link for link in links if site_of(link, config.sites) is not None)
    if said.refused or inner.refused:
        return Outcome("quarantined", f"the page says {said.refused or inner.refused}", links, facts=facts)
    reason = _licence(answer.url, config, facts)
    if reason:
        return Outcome("quarantined", reason, links, facts=facts)
    if len(page.text) < config.text_characters_min:
        return Outcome("quarantined", "too little text", links, facts=facts)
    language = language_of(page.text, page.language)
    if not language:
        return Outcome("quarantined", "neither Japanese nor English", links, facts=facts)
    facts |= {"language": language, "title": page.title}
    return Outcome("kept", links=links, text=page.text, facts=facts)


def _licence(url: str, config: WebSource, facts: dict[str, Any]) -> str:
    """Note licence and evidence; give the reason for which the page is set aside, "" for none."""
    claimed = facts.get("claims", {})
    claim = sorted({licence for licences in claimed.values() for licence in licences})
    site = site_of(url, config.sites)
    if site is not None and site.licence:
        stated, evidence = site.licence, f"the config: {site.evidence}"
        contradiction = disagreement({"config": site.licence, "page": claim})
    else:
        stated, evidence = SEPARATOR.join(claim), "claimed by the page: " + ", ".join(claimed)
        contradiction = ""
    decision = decide(stated, (*config.licences, *config.accept))
    facts |= {"licence": decision.licence, "licence_evidence": evidence if decision.licence else ""}
    return contradiction or decision.reason
