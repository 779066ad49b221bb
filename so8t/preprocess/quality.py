"""Broken text: rules for what breaks in known ways, and an isolation forest for what is merely odd.

Each removal names its reason. A forest alone explains nothing, so a row that it proposes goes only when one
feature is also far from the median, and that feature is the reason. What is odd is asked within a population: the texts
of one language in one source, or in all crawled origins. Among many short prompts every long page is an outlier, and no
source deserves to go for being unlike the others.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from so8t.preprocess.normalise import compare_key

DISTINCT_OF = 60
MOJIBAKE_MIN, BARS_MIN = 0.005, 0.08  # of all characters: a page may quote one, and a table has bars
ROWS_MIN = 50  # fewer rows of a population say too little about what is odd
FOREST_ROWS = 20_000  # drawn at random, from which the forest learns; a tree sees 256
SCALE_MIN = 0.1  # most rows have no digit at all: the deviation of such a share is zero
# UTF-8 read as Shift_JIS (three kanji that nearly every such text holds), and UTF-8 read as Latin-1.
_MOJIBAKE = re.compile(r"[\ufffd縺繧繝]|[ÃÂãâÐÑåäæçèé][\u0080-\u00bf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ€]")
_MASK = re.compile(r"\[[A-Z_]+\]")
_WORD = re.compile(r"\w+")
FEATURES = (
    "log_length", "kana", "kanji", "latin", "digits", "symbols", "spaces", "distinct", "longest_run", "zlib_ratio", "word_length",
)  # fmt: skip

Values = Callable[[np.ndarray, list[int]], np.ndarray]  # ascending rows, places in FEATURES -> [rows, places]


def broken(text: str) -> str:
    """Why a text is broken, or "". Masks of personal data do not count."""
    text = _MASK.sub("", text)
    solid = [c for c in text if not c.isspace()]
    if len(compare_key(text)) < 3:
        return "too short"
    if len(_MOJIBAKE.findall(text)) >= max(2, MOJIBAKE_MIN * len(text)):
        return "mojibake"
    if text.count("|") >= max(4, BARS_MIN * len(text)):
        return "fragments between bars"
    words = _WORD.findall(text.lower())
    # Of a long text the distinct characters are few beside all: it is judged as if it were no longer than this.
    if len(solid) >= 10 and len(set(solid)) / min(len(solid), DISTINCT_OF) < 0.15:
        return "one character repeated"
    if len(words) >= 8 and Counter(words).most_common(1)[0][1] / len(words) > 0.5:
        return "one word repeated"
    if sum(c.isalpha() for c in solid) / len(solid) < 0.3:
        return "hardly any letters"
    return ""


def features(text: str) -> list[float]:
    """The numbers named in FEATURES; shares are of all characters."""
    text = _MASK.sub("", text) or " "
    kinds = Counter(map(_kind, text))
    share = {name: kinds[name] / len(text) for name in ("kana", "kanji", "latin", "digits", "symbols", "spaces")}
    run = longest = 1
    for before, after in pairwise(text):
        run = run + 1 if before == after else 1
        longest = max(longest, run)
    raw = text.encode("utf-8")
    words = _WORD.findall(text)
    return [
        float(np.log(len(text))),
        *share.values(),
        len(set(text)) / len(text),
        longest / len(text),
        len(zlib.compress(raw, 6)) / len(raw),
        float(np.log(np.mean([len(word) for word in words]))) if words else 0.0,
    ]


def _kind(c: str) -> str:
    if c.isspace():
        return "spaces"
    if "\u3040" <= c <= "\u30ff":
        return "kana"
    if "\u3400" <= c <= "\u9fff":
        return "kanji"
    if c.isdigit():
        return "digits"
    return "latin" if unicodedata.category(c)[0] == "L" else "symbols"


def populations(rows: np.ndarray, sources_N: np.ndarray, crawled: np.ndarray) -> list[np.ndarray]:
    """The rows of one language in parts of which each is judged by itself; `crawled` tells which sources are origins.

    A crawl has many origins with a few pages each: all are one population.
    """
    of_N = np.where(crawled[sources_N[rows]], np.int32(len(crawled)), sources_N[rows])
    return [rows[of_N == each] for each in np.unique(of_N)]


def odd(
    rows: np.ndarray, sources_N: np.ndarray, values: Values, worst: float, z_limit: float, seed: int
) -> dict[int, str]:
    """Of the texts of one population, by their ascending row numbers, those to drop and why.

    No more than the share `worst` of the population, and of each source (by row number [N]) in it; of one that is
    smaller than 1 / worst, one row. One feature of all rows, or all features of FOREST_ROWS of them, are held at a time.
    """
    if len(rows) < ROWS_MIN:
        return {}
    from sklearn.ensemble import IsolationForest

    centre_F, scale_F = (np.empty(len(FEATURES)) for _ in range(2))
    for place in range(len(FEATURES)):
        column = values(rows, [place])[:, 0]
        centre_F[place] = np.median(column)
        # 1.4826 times the median deviation is the standard deviation of a normal distribution.
        scale_F[place] = max(1.4826 * float(np.median(np.abs(column - centre_F[place]))), SCALE_MIN)

    def deviations(some: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(values(some, list(range(len(FEATURES)))) - centre_F) / scale_F)

    drawn = np.random.default_rng(seed).choice(len(rows), min(len(rows), FOREST_ROWS), replace=False)
    forest = IsolationForest(n_estimators=100, random_state=seed, n_jobs=1).fit(deviations(rows[np.sort(drawn)]))
    blocks = [rows[start : start + FOREST_ROWS] for start in range(0, len(rows), FOREST_ROWS)]
    scores = np.concatenate([forest.score_samples(deviations(block)) for block in blocks])
    lowest = np.argsort(scores, kind="stable")[: int(worst * len(rows))]
    lowest = np.sort(lowest[_within(sources_N[rows], lowest, worst)])
    reasons = {}
    for row, z_F in zip(rows[lowest].tolist(), deviations(rows[lowest]), strict=True):
        feature = int(z_F.argmax())
        if z_F[feature] >= z_limit:
            reasons[row] = f"odd {FEATURES[feature]}, {z_F[feature]:.0f} deviations"
    return reasons


def _within(sources_N: np.ndarray, chosen: np.ndarray, share: float) -> np.ndarray:
    """Which of the chosen places, worst first, their sources' shares allow, bool [chosen]."""
    rows_of = np.bincount(sources_N + 1)  # -1 stands for rows without a source
    left, fits = np.maximum(1, (share * rows_of).astype(int)), np.zeros(len(chosen), bool)
    for number, source in enumerate((sources_N[chosen] + 1).tolist()):
        fits[number] = left[source] > 0
        left[source] -= 1
    return fits
