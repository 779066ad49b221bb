"""Looks for what must never be published: secrets, personal data and this machine's paths.

A finding names file, line (or key of the metadata) and rule, never the text that was found.
"""

import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import get_token

from so8t.errors import InputError
from so8t.upload.metadata import texts
from so8t.upload.repository import Entry

SECRETS = {
    "Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,})\b"),
    "OpenAI or Anthropic key": re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}\b"),
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "Google API key": re.compile(r"\bAIza[A-Za-z0-9_-]{35}\b"),
    "Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{20,}\b"),
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"),
    "JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/@]+@"),
}
# Folders in which people keep things. A path such as /etc/passwd may stand in a prompt, and says nothing of anybody.
PLACES = "mnt|media|Volumes|srv|opt|scratch|workspace|work|data|content/drive|var"
PATHS = {
    "home folder of a user": re.compile(r"(?<![\w./-])/(?:home|Users)/[^\s/\"'<>]+/|(?<![\w./-])/root/"),
    "Windows user folder": re.compile(r"(?i)\b[A-Z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)\w"),
    "Windows folder": re.compile(
        r"(?i)(?<!\w)[A-Z]:(?:\\{1,2}|/)(?:data|dev|git|home|models?|program files|programdata|projects?|repos?|src|temp|tmp|windows|work)(?:\\{1,2}|/)\w"
    ),
    "temporary folder": re.compile(r"(?<![\w./-])/(?:private/)?(?:tmp|var/folders)/\w"),
    "folder of a machine": re.compile(rf"(?<![\w./:-])/(?:{PLACES})/[\w.-]+/[\w.-]"),
}
# Addresses under names reserved for documentation (RFC 2606) belong to nobody.
PERSONAL = {
    "mail address": re.compile(
        r"\b[\w.+-]+@(?!(?:[\w-]+\.)*example(?:\.|\b)|(?:[\w-]+\.)*(?:invalid|test|localhost)\b)[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b"
    ),
    "Japanese phone number": re.compile(
        r"(?<![\w.-])(?:(?:0\d{1,3}-|\+81[- ]?\d{1,2}[- ])\d{2,4}[- ]\d{4}|0\d{1,3}\(\d{2,4}\)\d{4}|0[789]0\d{8})(?![\w.-])"
    ),
    "My Number": re.compile(r"(?:マイナンバー|個人番号|(?i:my ?number))\D{0,12}\d{4}[- ]?\d{4}[- ]?\d{4}(?!\d)"),
    "card number": re.compile(r"(?<![\w.-])\d{4}([- ])\d{4}\1\d{4}\1\d{4}(?![\w.-])"),
}
TEXT_SUFFIXES = frozenset({".csv", ".html", ".jinja", ".json", ".jsonl", ".md", ".svg", ".txt", ".yaml", ""})
# Vocabulary and licence texts hold fragments and names that are no one's private data.
NO_PERSONAL_DATA = frozenset({"tokenizer.json", "tokenizer.model", "LICENSE", "NOTICE", "SHA256SUMS"})
VOCABULARY = frozenset({"tokenizer.ggml.tokens", "tokenizer.ggml.merges"})
# What people type for a hyphen between full-width digits.
HYPHENS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc"), "-")
# `_KEY` at the end: SO8T_JUDGE_KEY and its like.
SECRET_VARIABLE = re.compile(r"(?i)TOKEN|SECRET|PASSWORD|API_?KEY|AUTH_STRING|_KEY$")
SECRET_MIN_CHARACTERS = 8
PLACE_MIN_CHARACTERS = 5


@dataclass(frozen=True)
class Finding:
    """Where which rule hit. The text itself is not kept."""

    path: str
    where: str
    rule: str

    @property
    def name(self) -> str:
        """What `upload.accepted_findings` calls it."""
        return f"{self.path}: {self.rule}"

    def __str__(self) -> str:
        return f"{self.path}, {self.where}: {self.rule}" if self.where else self.name


def known_texts(home: Path) -> dict[str, str]:
    """Texts of this very machine that must not appear: tokens, passwords, and folders as they are written and escaped."""
    secrets = {name: value for name, value in os.environ.items() if SECRET_VARIABLE.search(name)}
    secrets["the stored Hugging Face token"] = get_token() or ""
    auth = home / "prefect" / "auth"
    for part in auth.read_text(encoding="utf-8").split(":") if auth.is_file() else ():
        secrets["the server's password"] = part.strip()
    known = {name: value for name, value in secrets.items() if len(value) >= SECRET_MIN_CHARACTERS}
    for name, place in (("SO8T home", home), ("home folder", Path.home()), ("working folder", Path.cwd())):
        written = {str(place), place.as_posix(), json.dumps(str(place))[1:-1]}
        known |= {
            f"{name}{' ' * n}": text for n, text in enumerate(sorted(written)) if len(text) >= PLACE_MIN_CHARACTERS
        }
    return known


def scan_text(path: str, lines: Iterable[str], known: dict[str, str], where: str = "") -> Iterator[Finding]:
    """Findings of one text, line by line; `where` names a text that has no lines to speak of."""
    rules = {**SECRETS, **PATHS}
    if PurePosixPath(path).name not in NO_PERSONAL_DATA and where not in VOCABULARY:
        rules |= PERSONAL
    for number, line in enumerate(lines, 1):
        plain = line if line.isascii() else unicodedata.normalize("NFKC", line).translate(HYPHENS)
        for rule, pattern in rules.items():
            if pattern.search(plain):
                yield Finding(path, where or f"line {number}", rule)
        for name, value in known.items():
            if value in line:
                yield Finding(path, where or f"line {number}", f"value of {name.rstrip()}")


def scan(entries: Iterable[Entry], known: dict[str, str]) -> list[Finding]:
    """Read every text whole, and of model files and pictures what they say beside their numbers."""
    findings: list[Finding] = []
    for entry in entries:
        if PurePosixPath(entry.path).suffix.lower() in TEXT_SUFFIXES:
            with entry.source.open(encoding="utf-8", errors="replace") as lines:
                findings += scan_text(entry.path, lines, known)
        else:
            for where, text in texts(entry.path, entry.source):
                findings += scan_text(entry.path, text.splitlines(), known, where or "text in it")
    return list(dict.fromkeys(findings))


def refuse_findings(findings: list[Finding], accepted: Collection[str] = ()) -> None:
    """InputError with every place that was not looked at and accepted; nothing has been sent by then."""
    findings = [finding for finding in findings if finding.name not in accepted]
    if findings:
        listed = "\n".join(f"  - {finding}" for finding in findings)
        raise InputError(
            f"{len(findings)} place(s) hold what must not be published\n{listed}",
            "no secrets, personal data or paths of this machine",
            "mend the step that wrote the file, change a token that leaked, then run again (what is none of these after all "
            "is named in upload.accepted_findings as `FILE: RULE`); nothing was published",
        )
