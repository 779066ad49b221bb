"""How fast and how completely are near duplicates found, beside datasketch?

    pip install datasketch
    python -m benchmarks.preprocess_dedup --documents 50000

Documents are 340 characters of made-up Japanese, 1 kB in UTF-8; every tenth has an edited copy, of another width in
every hundredth. Both tools do the whole way from the text to verified pairs, one thread, CPU time, on the same
documents: the same compare key, the same 5-grams hashed by the same function (datasketch gets them hashed, which is
its fastest way), LSH at 0.5, the same exact check. Recall is over planted pairs, by a Jaccard of plain sets of strings.
"""
# ruff: noqa: S311 - random texts, no secrets

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from so8t.preprocess import minhash
from so8t.preprocess.duplicates import find_pairs
from so8t.preprocess.normalise import compare_key

LENGTH = 340
LEAST = 0.5
LETTERS = [chr(c) for c in range(0x3042, 0x3094)] + [chr(c) for c in range(0x4E00, 0x5400)]
BARS = ((0.8, 1.01, 0.99), (0.65, 0.8, 0.90))  # from, below, recall
Pairs = dict[tuple[int, int], float]


def documents(count: int, seed: int) -> tuple[list[str], list[tuple[int, int]]]:
    """(texts, planted pairs of rows)."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(2, 4))) for _ in range(20000)]
    words += ["１２", "ABC", "、", "。"] * 300
    texts: list[str] = []
    planted = []
    while len(texts) < count:
        text = "".join(rng.choices(words, k=LENGTH // 2))[:LENGTH]
        texts.append(text)
        if len(texts) % 10 == 1 and len(texts) < count:
            planted.append((len(texts) - 1, len(texts)))
            texts.append(_edited(text, rng.uniform(0, 0.05), rng) if len(texts) % 100 > 1 else text.translate(_WIDE))
    return texts, planted


_WIDE = {ord("A") + i: 0xFF21 + i for i in range(26)} | {0xFF11 + i: ord("1") + i for i in range(9)} | {0x3002: " "}


def _edited(text: str, share: float, rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) if rng.random() < share else letter for letter in text)


def jaccard(first: str, second: str) -> float:
    """Of the sets of 5-grams as strings: nothing in common with the way that is measured."""
    left, right = ({key[i : i + 5] for i in range(len(key) - 4)} for key in map(compare_key, (first, second)))
    return len(left & right) / len(left | right)


def ours(texts: list[str]) -> Pairs:
    """so8t's own."""
    return {(pair.first, pair.second): pair.jaccard for pair in find_pairs(texts, LEAST, 0)}


def by_datasketch(texts: list[str]) -> Pairs:
    """datasketch's MinHash and LSH, every candidate checked by so8t's exact Jaccard."""
    from datasketch import MinHash, MinHashLSH

    def plain(value: int) -> int:
        return value

    index = MinHashLSH(threshold=LEAST, num_perm=128)
    blank = MinHash(num_perm=128, hashfunc=plain)
    grams, found = [], {}
    for row, text in enumerate(texts):
        own = minhash.grams(compare_key(text))
        sketch = blank.copy()
        sketch.update_batch((own >> np.uint64(32)).tolist())
        for other in sorted(index.query(sketch)):
            both = minhash.shared(grams[other], own)
            if (value := both / (len(grams[other]) + len(own) - both)) >= LEAST:
                found[other, row] = value
        index.insert(row, sketch)
        grams.append(own)
    return found


def measure(name: str, tool: Callable[[list[str]], Pairs], texts: list[str], planted: Pairs) -> tuple[float, bool]:
    """Print speed, recall by band, and pairs that are none; (documents/s, are the bars of quality met)."""
    started = time.process_time()
    found = tool(texts)
    speed = len(texts) / (time.process_time() - started)
    false = sum(jaccard(texts[a], texts[b]) < LEAST - 1e-9 for a, b in found)
    print(f"{name}: {speed:.0f} documents/s, {len(found)} pairs, {false} of them below {LEAST}")
    met = not false
    for least, below, bar in BARS:
        wanted = [pair for pair, value in planted.items() if least <= value < below]
        recall = sum(pair in found for pair in wanted) / len(wanted)
        met &= recall >= bar
        print(f"  recall {recall:.4f} of {len(wanted)} pairs with J from {least} (bar {bar})")
    return speed, met


def main() -> int:
    """Both tools; 1 where so8t misses a bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=50000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    texts, rows = documents(given.documents, given.seed)
    planted = {pair: jaccard(texts[pair[0]], texts[pair[1]]) for pair in rows}
    size = sum(len(text.encode("utf-8")) for text in texts) / len(texts)
    print(f"{len(texts)} documents of {size:.0f} bytes, {len(rows)} planted pairs")
    find_pairs(texts[:50], LEAST, 0)  # compiles
    speed, met = measure("so8t", ours, texts, planted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    print(f"  peak of the whole process up to here {peak:.0f} MiB")
    peer, _ = measure("datasketch", by_datasketch, texts, planted)
    print(f"so8t is {speed / peer:.2f} times as fast as datasketch")
    return 0 if met and speed >= 15000 and speed >= 4 * peer and peak < 500 else 1


if __name__ == "__main__":
    sys.exit(main())
