"""The NSFW pool: rows flagged so, and those that say or show nearly the same without the flag."""

from collections.abc import Iterable

import numpy as np

from so8t.preprocess.duplicates import Pair
from so8t.preprocess.index import Index


def pool(index: Index, pairs: Iterable[Pair]) -> None:
    """Flag every row that is in a pair with a flagged one, or has the same content.

    Only a flagged row draws others in: a copy of a copy that is not near to it stays where it is.
    """
    flagged_N = index.nsfw_N & ~index.reasons.given
    says_N = np.zeros(index.rows, bool)
    says_N[index.same[flagged_N]] = True
    index.nsfw_N |= says_N[index.same]
    for pair in pairs:
        if flagged_N[pair.first] or flagged_N[pair.second]:
            index.nsfw_N[[pair.first, pair.second]] = True
