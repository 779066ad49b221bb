"""May a dataset of the Hub be used? Card, tags, declared upstreams, licence file and README are asked in this order.

What is refused or set aside is not read beyond its metadata; only where everything else agrees are the licence file and
then the README read. Every statement is kept as evidence, with where it was found.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from so8t.collect.licence import decide, disagreement, normal_form
from so8t.collect.repository import TOKEN_WANTED, Unavailable, describe, has_token

Outcome = Literal["accepted", "refused", "quarantined", "gated", "unavailable"]
NSFW_TAGS = frozenset({"not-for-all-audiences", "nsfw"})
LICENCE_NAME = re.compile(r"(LICEN[CS]E|COPYING)([-_.][\w.-]+)?", re.IGNORECASE)
LICENCE_BYTES_MAX = 100_000
README, README_BYTES_MAX = "README.md", 1_000_000
# Upstreams whose terms a permissive card on what was made from them does not lift; looked for in id, tags, declared
# sources and base models, and in sentences of the README that say what the data was made from.
OWN_TERMS = {
    "output of a model whose terms limit what may be trained on it": (
        r"chat[- ]?gpt|gpt[- ]?3\.?5|gpt[- ]?4|gpt4all|share[- ]?gpt|davinci|alpaca|vicuna|open-?orca(?!-math)|gpt-?teacher|claude"
    ),
    "recordings of a voice whose owner has rules of their own": r"amitaro|zundamon|tsukuyomi|vits-tts",
    "crawled pages, each with an owner of its own": r"\bmc4|\bc4\b|oscar|common[- ]?crawl",
}
_MADE_FROM = re.compile(
    r"generat|creat|synthe|produc|translat|distil|annotat|label|deriv|based on|using|collected|scraped|crawl|taken from"
    r"|生成|作成|合成|翻訳|出力|抽出|収集|ラベル|注釈|使って|使い|使用|用いて|利用|もとに|基に|元に",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[。．!?！？])|(?<=\.)\s|\n")
# What marks a licence's own text. All phrases of a row must be there.
TEXTS = {
    "mit": ("permission is hereby granted, free of charge", "the above copyright notice and this permission notice"),
    "apache-2.0": ("apache license", "version 2.0, january 2004"),
    "bsd": ("redistribution and use in source and binary forms",),
    "gpl": ("gnu", "general public license"),
    "cc-nc": ("creative commons", "noncommercial"),
    "cc": ("creative commons",),
}


@dataclass(frozen=True)
class Verdict:
    """What was decided of a dataset. `licence` is the normal form; `reason` is empty where it is accepted."""

    outcome: Outcome
    licence: str
    reason: str
    evidence: dict[str, Any]
    nsfw: bool = False


def evidence_id(repo: str, revision: str) -> str:
    """The name under which a row finds its dataset's evidence in sources.json."""
    return f"hub:{repo}@{revision}"


def unavailable(repo: str, revision: str, error: Unavailable) -> Verdict:
    """The verdict on a dataset that the Hub does not show us."""
    outcome: Outcome = "gated" if error.gated else "unavailable"
    reason = f"{outcome}: {error}"
    return Verdict(outcome, "", reason, _evidence(repo, revision) | {"outcome": outcome, "reason": reason})


def judge(
    info: Any,
    allowed: Iterable[str],
    checked: Mapping[str, str],
    read: Callable[[Any], bytes],
) -> Verdict:
    """Judge what `describe` gave. `checked` names upstreams that the user vouches for, with where their terms stand.

    `read` gives the bytes of one of the dataset's files, and is asked for its licence file alone, after all else.
    """
    allowed = tuple(allowed)
    card = info.card_data.to_dict() if info.card_data else {}
    tags = [str(tag) for tag in info.tags or []]
    stated: dict[str, object] = {
        "card": card.get("license"),
        "tags": [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")],
    }
    evidence = _evidence(info.id, info.sha) | stated
    for name in ("license_name", "license_link", "source_datasets", "base_model"):
        if card.get(name):
            evidence[name] = card[name]
    nsfw = bool(NSFW_TAGS & {tag.lower() for tag in tags})
    licence = normal_form(card.get("license"))

    def verdict(outcome: Outcome, reason: str) -> Verdict:
        return Verdict(outcome, licence, reason, {**evidence, "outcome": outcome, "reason": reason}, nsfw)

    if reason := disagreement(stated):
        return verdict("quarantined", reason)
    if reason := decide(card.get("license"), allowed).reason:
        return verdict("refused", reason)
    name = normal_form(card.get("license_name"))
    if name and name != licence:
        return verdict("quarantined", f"the card says {licence} and names its licence {name!r}")
    declared = _declared(card.get("source_datasets"))
    if terms := _own_terms([info.id, *tags, *declared, *_declared(card.get("base_model"))], checked):
        return verdict("quarantined", terms)
    evidence["upstreams"], reason = _upstreams(declared, allowed, checked)
    if reason:
        return verdict("quarantined", reason)
    if info.gated and not has_token():
        return verdict("gated", f"gated ({info.gated}) and there is no token: {TOKEN_WANTED}")
    evidence["files"], reason = _licence_files(info, licence, read)
    if not reason:
        evidence["readme"], reason = _readme(info, checked, read)
    return verdict("quarantined", reason) if reason else verdict("accepted", "")


def _evidence(repo: str, revision: str) -> dict[str, Any]:
    return {"evidence_id": evidence_id(repo, revision), "id": repo, "revision": revision}


def _declared(stated: object) -> list[str]:
    """Declared upstreams: `extended|squad` names squad, `original` none."""
    values = stated if isinstance(stated, list | tuple) else [stated]
    names = [str(value).strip().split("|")[-1] for value in values if value]
    return [name for name in names if name and name != "original"]


def _own_terms(names: Iterable[str], checked: Mapping[str, str]) -> str:
    for name in names:
        for terms, pattern in OWN_TERMS.items():
            if name not in checked and re.search(pattern, name, re.IGNORECASE):
                return f"{name!r} speaks of an upstream with its own terms: {terms}"
    return ""


def _upstreams(
    declared: Iterable[str], allowed: tuple[str, ...], checked: Mapping[str, str]
) -> tuple[list[dict[str, Any]], str]:
    """What each declared upstream states, from its metadata alone, and the first reason against one."""
    found: list[dict[str, Any]] = []
    for name in declared:
        if name in checked:
            found.append({"id": name, "checked": checked[name]})
            continue
        try:
            info = describe(name)
        except Unavailable as error:
            return found, f"the upstream {name!r} cannot be checked: {error}"
        licence = info.card_data.get("license") if info.card_data else None
        found.append({"id": name, "revision": str(info.sha), "card": licence})
        if reason := decide(licence, allowed).reason:
            return found, f"the upstream {name!r}: {reason}"
    return found, ""


def _licence_files(info: Any, licence: str, read: Callable[[Any], bytes]) -> tuple[list[dict[str, Any]], str]:
    """What the licence files in the dataset's root are, and why they speak against the card."""
    files = [file for file in info.siblings or [] if LICENCE_NAME.fullmatch(file.rfilename)]
    found: list[dict[str, Any]] = []
    for file in sorted(files, key=lambda file: str(file.rfilename)):
        if (file.size or 0) > LICENCE_BYTES_MAX:
            return found, f"{file.rfilename} has {file.size} bytes and is no licence text"
        found.append({"file": file.rfilename, "blob": file.blob_id, "says": recognise(read(file))})
    says = sorted({str(entry["says"]) for entry in found})
    if "" in says:
        return found, "a licence file holds no text that is known here"
    if says and normal_form(says) != licence:
        return found, f"places disagree: card says {licence}, files say {normal_form(says)}"
    return found, ""


def _readme(info: Any, checked: Mapping[str, str], read: Callable[[Any], bytes]) -> tuple[list[dict[str, str]], str]:
    """The README's sentences that say it was made from an upstream with terms of its own, and the first reason."""
    file = next((file for file in info.siblings or [] if file.rfilename == README), None)
    if file is None:
        return [], ""
    if (file.size or 0) > README_BYTES_MAX:
        return [], f"{README} has {file.size} bytes: too many to read for what the data was made from"
    text = read(file).decode("utf-8", errors="replace")
    told = [
        {"mentions": found[0], "terms": terms, "sentence": sentence.strip()[:300]}
        for sentence in _SENTENCE.split(text.partition("\n---")[2] if text.startswith("---") else text)
        if _MADE_FROM.search(sentence)
        for terms, pattern in OWN_TERMS.items()
        if (found := re.search(pattern, sentence, re.IGNORECASE))
    ]
    doubts = [entry for entry in told if entry["mentions"].lower() not in {name.lower() for name in checked}]
    reason = (
        f"{README} speaks of {doubts[0]['mentions']!r}, an upstream with its own terms: {doubts[0]['terms']}"
        if doubts
        else ""
    )
    return told, reason


def recognise(text: bytes) -> str:
    """Which licence a text is, "" for none that is known."""
    words = " ".join(text.decode("utf-8", errors="replace").lower().split())
    return next((name for name, phrases in TEXTS.items() if all(phrase in words for phrase in phrases)), "")
