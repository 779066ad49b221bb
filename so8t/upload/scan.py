"""Looks for what must never be published: secrets, personal data and this machine's paths.

A finding names file, line and rule, never the text that was found.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from so8t.errors import InputError
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
PATHS = {
    "home folder of a user": re.compile(r"(?<![\w./-])/(?:home|Users)/[^\s/\"'<>]+/|(?<![\w./-])/root/"),
    "Windows user folder": re.compile(r"(?i)\b[A-Z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)\w"),
    "temporary folder": re.compile(r"(?<![\w./-])/(?:private/)?(?:tmp|var/folders)/\w"),
}
# Addresses under names reserved for documentation (RFC 2606) belong to nobody.
PERSONAL = {
    "mail address": re.compile(
        r"\b[\w.+-]+@(?!(?:[\w-]+\.)*example(?:\.|\b)|(?:[\w-]+\.)*(?:invalid|test|localhost)\b)[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b"
    ),
    "Japanese phone number": re.compile(r"(?<![\w.-])(?:0\d{1,3}-|\+81[- ]?\d{1,2}[- ])\d{2,4}[- ]\d{4}(?![\w.-])"),
    "My Number": re.compile(r"(?:マイナンバー|個人番号|(?i:my ?number))\D{0,12}\d{4}[- ]?\d{4}[- ]?\d{4}(?!\d)"),
    "card number": re.compile(r"(?<![\w.-])\d{4}([- ])\d{4}\1\d{4}\1\d{4}(?![\w.-])"),
}
TEXT_SUFFIXES = frozenset({".csv", ".html", ".jinja", ".json", ".jsonl", ".md", ".svg", ".txt", ".yaml", ""})
# Vocabulary and licence texts hold fragments and names that are no one's private data.
NO_PERSONAL_DATA = frozenset({"tokenizer.json", "tokenizer.model", "LICENSE", "NOTICE", "SHA256SUMS"})
# Metadata of GGUF and safetensors files stands at their head; texts between binary data are runs of printable bytes.
BINARY_HEAD_BYTES = 16 << 20
PRINTABLE = re.compile(rb"[\x20-\x7e]{8,}")
SECRET_VARIABLE = re.compile(r"(?i)TOKEN|SECRET|PASSWORD|API_?KEY|AUTH_STRING")
SECRET_MIN_CHARACTERS = 8
PLACE_MIN_CHARACTERS = 5


@dataclass(frozen=True)
class Finding:
    """Where which rule hit. The text itself is not kept."""

    path: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.rule}" if self.line else f"{self.path}: {self.rule}"


def known_texts(home: Path) -> dict[str, str]:
    """Texts of this very machine that must not appear: tokens in the environment, and folders."""
    known = {
        name: value
        for name, value in os.environ.items()
        if SECRET_VARIABLE.search(name) and len(value) >= SECRET_MIN_CHARACTERS
    }
    places = {"SO8T home": home, "home folder": Path.home(), "working folder": Path.cwd()}
    return known | {name: str(place) for name, place in places.items() if len(str(place)) >= PLACE_MIN_CHARACTERS}


def scan_text(path: str, text: str, known: dict[str, str]) -> Iterator[Finding]:
    """Findings of one text, line by line."""
    rules = {**SECRETS, **PATHS}
    if PurePosixPath(path).name not in NO_PERSONAL_DATA:
        rules |= PERSONAL
    for number, line in enumerate(text.splitlines(), 1):
        for rule, pattern in rules.items():
            if pattern.search(line):
                yield Finding(path, number, rule)
        for name, value in known.items():
            if value in line:
                yield Finding(path, number, f"value of {name}")


def scan(entries: Iterable[Entry], known: dict[str, str]) -> list[Finding]:
    """Read every text whole, and the heads of model files, where their metadata stands."""
    findings: list[Finding] = []
    for entry in entries:
        if PurePosixPath(entry.path).suffix.lower() in TEXT_SUFFIXES:
            text = entry.source.read_text(encoding="utf-8", errors="replace")
            findings += scan_text(entry.path, text, known)
        else:
            with entry.source.open("rb") as file:
                head = b"\n".join(PRINTABLE.findall(file.read(BINARY_HEAD_BYTES))).decode("ascii")
            rules = {**SECRETS, **PATHS}
            findings += [Finding(entry.path, 0, rule) for rule, pattern in rules.items() if pattern.search(head)]
            findings += [Finding(entry.path, 0, f"value of {name}") for name, value in known.items() if value in head]
    return findings


def refuse_findings(findings: list[Finding]) -> None:
    """InputError with every place; nothing has been sent by then."""
    if findings:
        listed = "\n".join(f"  - {finding}" for finding in findings)
        raise InputError(
            f"{len(findings)} place(s) hold what must not be published\n{listed}",
            "no secrets, personal data or paths of this machine",
            "mend the step that wrote the file, change a token that leaked, then run again; nothing was published",
        )
