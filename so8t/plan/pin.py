"""Which revision the Hub has now, as settings to put into a config."""

import os
from typing import TYPE_CHECKING

from so8t.collect.config import HubBase
from so8t.errors import ConfigError, InputError

if TYPE_CHECKING:
    from so8t.config import Config


def pins(config: "Config") -> list[str]:
    """`base.revision=...` of the Hub's newest commit; InputError where the Hub cannot be asked."""
    base = config.base
    if not isinstance(base, HubBase):
        raise ConfigError(f"base.kind is {base.kind}", "a base on the Hub", "nothing is to be pinned")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        found = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None).model_info(base.id)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise InputError(
            f"the Hub gave no revision of {base.id} ({type(error).__name__})",
            "a network and a repository that your token may read",
            "copy the commit (40 hex digits) from the repository's page under Files, History",
        ) from None
    return [f"base.revision={found.sha}"]
