"""Which revisions the Hub has now, as settings to put into a config."""

import os
from typing import TYPE_CHECKING

from so8t.errors import ConfigError, InputError
from so8t.section import Repository

if TYPE_CHECKING:
    from so8t.config import Config


def repositories(config: "Config") -> dict[str, Repository]:
    """The models that are fetched from the Hub, by the place of their section in the config."""
    named = {"base": config.base, "train.vision.pretrained": config.train.vision.pretrained}
    return {place: one for place, one in named.items() if isinstance(one, Repository)}


def pins(config: "Config") -> list[str]:
    """`base.revision=...` and the like of the Hub's newest commits; InputError where the Hub cannot be asked."""
    found = repositories(config)
    if not found:
        raise ConfigError(f"base.kind is {config.base.kind}", "a base on the Hub", "nothing is to be pinned")
    return [f"{place}.revision={_newest(one.id)}" for place, one in found.items()]


def _newest(name: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        return str(HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None).model_info(name).sha)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise InputError(
            f"the Hub gave no revision of {name} ({type(error).__name__})",
            "a network and a repository that your token may read",
            "copy the commit (40 hex digits) from the repository's page under Files, History",
        ) from None
