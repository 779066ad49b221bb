"""What only all rows together can tell: pool, odd ones, duplicates, groups and splits, on the compact index.

Texts are looked at a few shards at a time, and only those of candidate pairs.
"""

from collections.abc import Callable

import numpy as np

from so8t.preprocess import duplicates, leaks, media, minhash, nsfw, quality, split
from so8t.preprocess.config import Preprocess
from so8t.preprocess.duplicates import Pair
from so8t.preprocess.index import Index
from so8t.preprocess.shard import BANDS, FEATURES, LOOKS

Say = Callable[[str], None]


def join(index: Index, config: Preprocess, say: Say) -> int:
    """Fill in pool, reasons, groups and splits; give the number of near pairs with different classes."""
    say("near texts and pictures")
    texts, shown = near_texts(index, config.same_group), near_media(index)
    nsfw.pool(index, [pair for pair in texts if pair.jaccard >= config.near_duplicate] + shown)
    index.take("fault", ~index.nsfw_N)
    _unwanted(index, config.languages)
    say("quality")
    _odd(index, config)
    say("duplicates and splits")
    place(index, texts, shown, config)
    say("leaks")
    leaks.remove(index, config.same_group, lambda found: _regroup(index, texts, shown, found, config))
    leaks.assert_apart(index)
    return sum(bool(index.label_N[pair.first] != index.label_N[pair.second]) for pair in _alive(index, texts))


def place(index: Index, texts: list[Pair], shown: list[Pair], config: Preprocess) -> None:
    """Drop duplicates and give the rest groups and splits."""
    order_N = index.precedence()
    media_N = order_N[(index.alive() & ~index.text_N)[order_N]]
    for row, first in media.copies(index.same, index.column("asked"), index.label_N, media_N):
        index.reasons.give(row, duplicates.EXACT, first)
    texts = _alive(index, texts)
    for row, (reason, first) in duplicates.drop(index.label_N, texts, config.near_duplicate, order_N).items():
        index.reasons.give(row, reason, first)
    split.assign(index, texts + shown, config)


def _regroup(index: Index, texts: list[Pair], shown: list[Pair], found: list[leaks.Leak], config: Preprocess) -> None:
    """Place all rows again, now with the pairs that MinHash had missed; `texts` grows by them."""
    texts += [Pair(*leak) for leak in found]
    split.assign(index, texts + shown, config)


def near_texts(index: Index, threshold: float) -> list[Pair]:
    """Pairs of texts whose Jaccard is at least `threshold`, sorted. Texts of two shards at most are held."""
    rows = np.flatnonzero(index.text_N & ~index.reasons.given).astype(np.int32)
    found_P2 = rows[minhash.candidates(index.column(name)[rows] for name in BANDS)]
    shards_P2 = np.searchsorted(index.starts, found_P2, side="right") - 1
    pairs: list[Pair] = []
    for block in np.unique(shards_P2, axis=0):
        here_P2 = found_P2[(shards_P2 == block).all(axis=1)]
        keys = dict(index.texts(np.unique(here_P2)))
        pairs += duplicates.verified(here_P2, keys.__getitem__, threshold)
    return sorted(pairs)


def near_media(index: Index) -> list[Pair]:
    """Pairs of pictures or sounds that show the same or look alike, sorted."""
    rows = np.flatnonzero(~index.text_N & ~index.reasons.given)
    pairs = {
        (int(first), int(row)): Pair(int(first), int(row), 1.0)
        for row, first in zip(rows, index.same[rows], strict=True)
        if row != first
    }
    seen = rows[index.column("seen")[rows]]
    bits_N2 = np.stack([index.column(name)[seen] for name in LOOKS], axis=1)

    def thumbnails(places: np.ndarray) -> dict[int, np.ndarray]:
        found = index.texts(seen[places], "looks", "thumbnail")
        return {int(place): np.frombuffer(bits, np.uint8) for place, (_, bits) in zip(places, found, strict=True)}

    for pair in media.look_alike(bits_N2, thumbnails):
        first, second = int(seen[pair.first]), int(seen[pair.second])
        pairs.setdefault((first, second), Pair(first, second, pair.jaccard))
    return [pairs[place] for place in sorted(pairs)]


def _alive(index: Index, pairs: list[Pair]) -> list[Pair]:
    alive_N = index.alive()
    return [pair for pair in pairs if alive_N[pair.first] and alive_N[pair.second]]


def _unwanted(index: Index, wanted: tuple[str, ...]) -> None:
    """Texts in other languages than the wanted ones, where there are such."""
    for code, name in enumerate(index.languages.values.to_pylist()):
        if wanted and name not in wanted:
            for row in np.flatnonzero((index.language_N == code) & index.text_N & index.alive()).tolist():
                index.reasons.give(row, f"in a language that is not asked for: {name}")


def _odd(index: Index, config: Preprocess) -> None:
    """Each language of a source is judged by its own rows, and so is each language of all crawled pages."""
    texts_N = index.alive() & index.text_N
    sources, source_N = index.coded("source")
    # The last one stands for rows without a source, whose place is -1.
    crawled = np.array([*(name.startswith(("http://", "https://")) for name in sources.values.to_pylist()), False])

    def values(rows: np.ndarray, features: list[int]) -> np.ndarray:
        return index.values(rows, [FEATURES[place] for place in features])

    for code in range(len(index.languages.values)):
        written = np.flatnonzero(texts_N & (index.language_N == code))
        for rows in quality.populations(written, source_N, crawled):
            found = quality.odd(rows, source_N, values, config.quality_worst, config.quality_z, config.seed)
            for row, reason in found.items():
                index.reasons.give(row, reason)
