"""Fixed answers, for where the model's own may not leave, in the language of the question."""

import re

from so8t.labels import Label
from so8t.thinking import APOLOGY

_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uff66-\uff9f]")

# Given instead of a final text that was written for another class than the one that counts.
INSTEAD = {
    Label.ESCALATION: {
        "ja": "この内容は専門家や担当者に確認する必要があるため、ここではお答えできません。適切な窓口にご相談ください。",
        "en": "This needs a person or an expert, so it cannot be answered here. Please ask someone who is qualified.",
    },
    Label.DENY: {
        "ja": "その情報はお伝えできません。公開されている情報についてでしたらお手伝いできます。",
        "en": "That information cannot be given out. I can help with what is publicly available.",
    },
    Label.REFUSE: {
        "ja": "そのご依頼にはお応えできません。",
        "en": "I cannot help with that.",
    },
}


def apology(question: str) -> str:
    """What a malformed reply becomes."""
    return APOLOGY[_language(question)]


def instead(label: Label, question: str) -> str:
    """What a reply becomes whose final text was written for a laxer class."""
    return INSTEAD[label][_language(question)]


def _language(text: str) -> str:
    return "ja" if _JAPANESE.search(text) else "en"
