"""The thinking format: four tagged parts, of which only `<final>` ever leaves.

<think-task>..</think-task><think-safety><|allow|>..</think-safety>
<think-policy>..</think-policy><final>..</final>
"""

import re
from dataclasses import dataclass

from so8t.labels import LABEL_TOKENS, Label

PARTS = ("think-task", "think-safety", "think-policy", "final")
TAGS = tuple(tag for part in PARTS for tag in (f"<{part}>", f"</{part}>"))
IMAGE_TOKEN = "<image>"
# In this order they take the base's spare vocabulary rows.
ADDED_TOKENS = (*TAGS, *LABEL_TOKENS, IMAGE_TOKEN)

# What a user is shown instead of a malformed reply. The raw text never leaves.
APOLOGY = {
    "ja": "申し訳ありません。うまくお答えできませんでした。もう一度お試しください。",
    "en": "Sorry, I could not give a proper answer. Please try again.",
}

_TAG = re.compile("|".join(re.escape(tag) for tag in TAGS))
_REPLY = re.compile(
    r"\s*" + r"\s*".join(rf"<{part}>(?P<{part.replace('-', '_')}>.*?)</{part}>" for part in PARTS) + r"\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Reply:
    """A well-formed reply, taken apart. `label` is None where think-safety names no class."""

    task: str
    safety: str
    policy: str
    final: str
    label: Label | None


def render(task: str, label: Label, safety: str, policy: str, final: str) -> str:
    """The reply as the model should write it."""
    return (
        f"<think-task>{task}</think-task><think-safety>{label.token}{safety}</think-safety>"
        f"<think-policy>{policy}</think-policy><final>{final}</final>"
    )


def parse(text: str) -> Reply | None:
    """Take a reply apart; None unless each tag stands exactly once, in order, with a non-empty final.

    Text between tags stays as it stands: a decoded `<final>7</final>` reads `<final> 7</final>`, and its final is " 7".
    """
    if _TAG.findall(text) != list(TAGS):
        return None
    match = _REPLY.fullmatch(text)
    if match is None or not match["final"].strip():
        return None
    safety = match["think_safety"]
    named = [label for label in Label if label.token in safety]
    label = named[0] if len(named) == 1 and safety.strip().startswith(named[0].token) else None
    return Reply(match["think_task"], safety, match["think_policy"], match["final"], label)
