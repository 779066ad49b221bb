"""A pinned revision of a model's repository on the Hub, file by file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from so8t.collect.basemodel.files import is_wanted
from so8t.collect.download import RemoteFile, bring, endpoint
from so8t.collect.licence import normal_form
from so8t.collect.slots import slot
from so8t.errors import InputError, StepFailed
from so8t.progress import Progress
from so8t.section import UNPINNED, Repository


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

        remote = RemoteFile.listed("model", config.id, config.revision, file)
        with slot(progress):
            bring(remote, out / file.rfilename, report)
        done += remote.size_bytes
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


def _model_info(config: Repository) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi(endpoint=endpoint()).model_info(config.id, revision=config.revision, files_metadata=True)
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
