"""The NSFW pool: rows flagged so, and those that say or show nearly the same without the flag."""

from so8t.preprocess import duplicates, media
from so8t.records import Record


def pooled(rows: list[Record], threshold: float, seed: int) -> tuple[list[Record], list[Record]]:
    """(the pool, the others), in order. Near: texts by a Jaccard of at least `threshold`, pictures that look alike.

    Only a flagged row draws others in: a copy of a copy that is not near to it stays where it is.
    """
    flagged = {row for row, record in enumerate(rows) if record.nsfw}
    if not flagged:
        return [], rows
    texts = [row for row, record in enumerate(rows) if record.modality == "text"]
    others = [row for row, record in enumerate(rows) if record.modality != "text"]
    said = duplicates.find_pairs([rows[row].prompt for row in texts], threshold, seed)
    shown = media.find_pairs([rows[row] for row in others])
    pool = set(flagged)
    for places, pairs in ((texts, said), (others, shown)):
        for pair in pairs:
            ends = {places[pair.first], places[pair.second]}
            if ends & flagged:
                pool |= ends
    inside = [record.with_(nsfw=True) for row, record in enumerate(rows) if row in pool]
    return inside, [record for row, record in enumerate(rows) if row not in pool]
