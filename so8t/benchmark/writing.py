"""What can be said of written replies without a judge: alarms, no scores.

chrF: Popovic 2015 (character n-grams up to 6, beta 2, no word n-grams, white space dropped). With a real judge its rank
correlation over ELYZA's items is .11 to .37: it shows a broken model, never a better one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from so8t.benchmark.ratings import mean_interval
from so8t.benchmark.statistics import Floats, proportion

CHRF_ORDER, CHRF_BETA = 6, 2
REPEATED_NGRAM = 8
JAPANESE = (("\u3040", "\u30ff"), ("\u4e00", "\u9fff"), ("\u3400", "\u4dbf"), ("\uff66", "\uff9d"))
# How replies that decline begin or end; a count to look at, not a judgement.
DECLINING = (
    "申し訳",
    "お答えできません",
    "お手伝いできません",
    "できかねます",
    "i cannot",
    "i can't",
    "i'm sorry",
    "i am sorry",
)


def chrf(reply: str, reference: str) -> float:
    """chrF of one reply, 0 to 1: the n-gram orders' mean precision and recall, over those that both texts have."""
    texts = ["".join(text.split()) for text in (reply, reference)]
    precisions, recalls = [], []
    for order in range(1, CHRF_ORDER + 1):
        found, wanted = (Counter(text[i : i + order] for i in range(len(text) - order + 1)) for text in texts)
        if found and wanted:
            shared = (found & wanted).total()
            precisions.append(shared / found.total())
            recalls.append(shared / wanted.total())
    precision, recall = (sum(values) / max(len(values), 1) for values in (precisions, recalls))
    weight = CHRF_BETA**2
    return (1 + weight) * precision * recall / (weight * precision + recall) if precision + recall else 0.0


def repeated_share(text: str) -> float:
    """Share of the text's 8-grams of characters that stand in it before: loops come near 1."""
    grams = [text[i : i + REPEATED_NGRAM] for i in range(len(text) - REPEATED_NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def japanese_share(text: str) -> float:
    """Share of kana and kanji among the letters."""
    letters = [character for character in text if character.isalpha()]
    return sum(any(a <= c <= b for a, b in JAPANESE) for c in letters) / len(letters) if letters else 0.0


def declines(text: str) -> bool:
    """Whether the text has one of the usual words of declining."""
    return any(words in text.lower() for words in DECLINING)


def describe(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts and means over replies; nothing for none."""
    n = len(lines)
    if not n:
        return {}
    texts = [line["shown"] for line in lines]
    return {
        "empty": proportion(sum(not text for text in texts), n),
        "ended": proportion(sum(line["ended"] for line in lines), n),
        "declined": proportion(sum(map(declines, texts)), n),
        "malformed": proportion(sum(line["tagged"] and not line["shown"] for line in lines), n),
        "japanese_share": sum(map(japanese_share, texts)) / n,
        "repeated_share": sum(map(repeated_share, texts)) / n,
        "characters": sum(map(len, texts)) / n,
    }


def mean_of(values: Floats, resamples: int, seed: int) -> dict[str, Any]:
    """A mean with its BCa interval over items."""
    return {"mean": float(values.mean()), "interval": vars(mean_interval(values, resamples, seed))}
