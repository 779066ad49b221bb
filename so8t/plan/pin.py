"""Which revisions the Hub has now, as settings to put into a config."""

import os
from typing import TYPE_CHECKING

from so8t.collect.config import HubSource
from so8t.collect.repository import Unavailable, describe
from so8t.errors import ConfigError, InputError, StepFailed
from so8t.questions import HubQuestions
from so8t.section import Repository

if TYPE_CHECKING:
    from so8t.config import Config


def repositories(config: "Config") -> dict[str, Repository]:
    """The models that are fetched from the Hub, by the place of their section in the config."""
    named = {"base": config.base, "train.vision.pretrained": config.train.vision.pretrained}
    return {place: one for place, one in named.items() if isinstance(one, Repository)}


def datasets(config: "Config") -> dict[str, HubSource | HubQuestions]:
    """The sources and the benchmark's questions on the Hub, by their place in the config."""
    sources = {f"collect.sources.{index}": source for index, source in enumerate(config.collect.sources)}
    questions = {f"benchmark.data.{task}": found for task, found in config.benchmark.data.items()}
    named = {**sources, **questions}
    return {place: one for place, one in named.items() if isinstance(one, HubSource | HubQuestions)}


def pins(config: "Config") -> list[str]:
    """`base.revision=...` and the like of the Hub's newest commits; InputError where the Hub cannot be asked.

    A dataset that cannot be read is a comment with the reason: its source may be skipped.
    """
    found, sources = repositories(config), datasets(config)
    if not found and not sources:
        raise ConfigError(f"base.kind is {config.base.kind}", "a base on the Hub", "nothing is to be pinned")
    settings = [f"{place}.revision={_newest(one.id)}" for place, one in found.items()]
    for place, source in sources.items():
        try:
            settings.append(f"{place}.revision={describe(source.id).sha}")
        except (Unavailable, StepFailed) as error:
            settings.append(f"# {place} ({source.id}): {error}")
    return settings


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
