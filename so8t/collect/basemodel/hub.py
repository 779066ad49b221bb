"""A pinned revision of a Hub repository, file by file, resumable at the byte and checked by hash.

huggingface_hub starts a file again from zero after a kill, so the bytes are fetched here with Range
requests into `<name>.part`; everything else (endpoint, token, addresses, errors) is its own.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import HASH_CHUNK_BYTES
from so8t.collect.basemodel.files import is_wanted
from so8t.collect.licence import normal_form
from so8t.errors import InputError, StepFailed
from so8t.progress import Progress
from so8t.section import UNPINNED, Repository

PART_SUFFIX = ".part"
TIMEOUT_S = 60.0
# Tries in a row that bring no byte; each waits twice as long as the one before.
FRUITLESS_TRIES = 6
FIRST_PAUSE_S = 1.0
RETRIED_STATUSES = (408, 429)

Report = Callable[[int], None]


def fetch(
    config: Repository, out: Path, progress: Progress, wanted: Callable[[str], bool] = is_wanted
) -> dict[str, Any]:
    """Fetch the data files of the pinned revision into `out`; facts name id, revision and the card's licence."""
    if config.revision == UNPINNED:
        raise InputError(
            f"the revision of {config.id} is not pinned",
            "the commit (40 hex digits) that you have looked at, so that every run has the same base",
            "`so8t plan --pin` prints the newest as a setting; put it into the config or into --set",
        )
    info = _model_info(config)
    files = sorted((file for file in info.siblings or [] if wanted(file.rfilename)), key=lambda file: file.rfilename)
    skipped = sorted(file.rfilename for file in info.siblings or [] if not wanted(file.rfilename))
    total = sum(file.size or 0 for file in files)
    done = 0
    for file in files:
        started = done

        def report(size_bytes: int, name: str = file.rfilename, started: int = started) -> None:
            progress.update(started + size_bytes, total, f"fetching {name}")

        expected = file.lfs.sha256 if file.lfs else file.blob_id
        download(config, file.rfilename, expected, out, report)
        done += file.size or 0
    card = info.card_data or {}
    return {
        "kind": "hub",
        "id": config.id,
        "revision": config.revision,
        "licence": normal_form(card.get("license")) or None,
        "files": len(files),
        "bytes": total,
        "skipped": skipped,
    }


def _endpoint() -> str | None:
    """Read now, not when huggingface_hub was imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _model_info(config: Repository) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi(endpoint=_endpoint()).model_info(config.id, revision=config.revision, files_metadata=True)
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise InputError(
            f"{config.id} at {config.revision} cannot be read: {type(error).__name__}",
            "a repository that exists, at a commit that exists, open to your token",
            "check id and revision in the config; for a gated one accept its terms and set HF_TOKEN",
        ) from None
    except (HTTPError, OSError) as error:
        raise StepFailed(f"the Hub did not answer for {config.id}: {type(error).__name__}: {error}") from error
    if info.sha != config.revision:
        raise InputError(f"the Hub gave revision {info.sha} of {config.id}", config.revision)
    return info


def download(config: Repository, name: str, expected: str, out: Path, report: Report) -> None:
    """Bring one file whole into `out`; `expected` is its sha256 (LFS) or its git blob id. StepFailed if it will not come."""
    target, part = out / name, out / (name + PART_SUFFIX)
    if target.is_file() and _digest(target, expected) == expected:
        return
    fruitless = 0
    while fruitless < FRUITLESS_TRIES:
        before = part.stat().st_size if part.is_file() else 0
        fault = _fetch_rest(config, name, part, report)
        if not fault:
            if _digest(part, expected) == expected:
                durable.fsync_file(part)
                durable.replace(part, target)
                return
            fault = "its bytes are not those that the Hub lists"
            part.unlink()
            before = 0
        after = part.stat().st_size if part.is_file() else 0
        fruitless = 0 if after > before else fruitless + 1
        if fruitless:
            time.sleep(FIRST_PAUSE_S * 2 ** (fruitless - 1))
    raise StepFailed(f"{config.id}: {name} did not come in {FRUITLESS_TRIES} tries: {fault}")


def _fetch_rest(config: Repository, name: str, part: Path, report: Report) -> str:
    """Append what is missing of `part`; "" when the server has sent all, else what went wrong."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(config.id, name, revision=config.revision, endpoint=_endpoint())
    have = part.stat().st_size if part.is_file() else 0
    # Compressed answers have no byte ranges of the file itself.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
            if response.status_code == 416:
                return ""
            hf_raise_for_status(response)
            resumed = response.status_code == 206
            with part.open("ab" if resumed else "wb") as file:
                for chunk in response.iter_bytes(HASH_CHUNK_BYTES):
                    file.write(chunk)
                    report(file.tell())
    except (HTTPError, ConnectionError) as error:
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if 400 <= status < 500 and status not in RETRIED_STATUSES:
            raise StepFailed(f"{config.id}: {name} was refused with status {status}") from error
        return f"{type(error).__name__}: {error}"
    return ""


def _digest(path: Path, expected: str) -> str:
    """sha256 for 64 hex digits, git's blob id for 40."""
    digest = hashlib.sha256()
    if len(expected) == 40:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
