"""Reference replies in the thinking format, kept short because the demo's model is tiny."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from so8t.labels import Label
from so8t.thinking import render


@cache
def _replies() -> dict[str, Any]:
    replies: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("replies.yaml").read_text(encoding="utf-8"))
    return replies


def text_reply(language: str, label: Label, category: str) -> str:
    """The reply to a text prompt; KeyError for a category without one is a mistake of ours."""
    words = _replies()[language]
    return render(
        words["task"]["text"], label, words["reason"][category], words["policy"][label.name], words["final"][category]
    )


def media_reply(modality: str, language: str, category: str, answer: str) -> str:
    """The reply about a picture or a sound: always ALLOW, and `<final>` is the bare answer."""
    words = _replies()[language]
    label = Label.ALLOW
    return render(words["task"][modality], label, words["reason"][category], words["policy"][label.name], answer)
