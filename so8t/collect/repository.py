"""What the Hub says of a dataset, without reading any of its files."""

from typing import Any

from so8t.collect.download import endpoint
from so8t.errors import InputError, StepFailed

TOKEN_WANTED = "ask for access on its page, then set HF_TOKEN"


class Unavailable(Exception):
    """The dataset is not open to us; the text is the reason that is kept. Not an error of the run by itself."""

    def __init__(self, reason: str, *, gated: bool = False) -> None:
        super().__init__(reason)
        self.gated = gated


def describe(repo: str, revision: str | None = None) -> Any:
    """The dataset's card, tags, commit and file list, sizes and hashes included, at a commit or the newest.

    Unavailable where it is gated, private, disabled or none; InputError for a commit that is not there; StepFailed
    where the Hub does not answer, which another try may mend.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )  # fmt: skip

    try:
        info = HfApi(endpoint=endpoint()).dataset_info(repo, revision=revision, files_metadata=True)
    except GatedRepoError:
        raise Unavailable("gated, and this token has no access", gated=True) from None
    except RevisionNotFoundError:
        raise InputError(
            f"{repo} has no revision {revision}", "an existing commit", "look at the dataset's history"
        ) from None
    except RepositoryNotFoundError:
        raise Unavailable("no such dataset, or a private one (a model's id is none)") from None
    except DisabledRepoError:
        raise Unavailable("disabled by the Hub") from None
    except (HTTPError, OSError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if status in (403, 404, 451):
            raise Unavailable(f"the Hub refuses it with status {status}") from None
        raise StepFailed(f"the Hub did not answer for {repo}: {type(error).__name__}: {error}") from error
    if revision is not None and info.sha != revision:
        raise InputError(f"{repo} answers with revision {info.sha}", f"the pinned {revision}")
    return info


def propose(licence: str, language: str, limit: int) -> list[str]:
    """Ids that the Hub lists under a licence and a language, most downloaded first. A listing proposes, no more."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    filters = [f"license:{licence}", f"language:{language}"]
    try:
        listed = HfApi(endpoint=endpoint()).list_datasets(filter=filters, sort="downloads", limit=limit)
        return [info.id for info in listed]
    except (HTTPError, OSError) as error:
        raise StepFailed(f"the Hub did not list datasets under {filters}: {type(error).__name__}: {error}") from error


def has_token() -> bool:
    """Whether requests carry a token: HF_TOKEN, or that of a login."""
    from huggingface_hub import get_token

    return get_token() is not None
