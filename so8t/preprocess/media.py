"""Which rows say or show the same, whatever holds it, and which pictures look alike."""

import hashlib
from collections import defaultdict

import numpy as np

from so8t.preprocess.duplicates import Pair
from so8t.preprocess.normalise import compare_key
from so8t.preprocess.pictures import UnreadableMedia, rgb
from so8t.preprocess.spectrogram import UnreadableSound, read_wav
from so8t.records import Record

EDGE_MIN = 32  # of less the hashes see too little: all 8x8 digits look alike
BITS_APART = 8  # of 64, for each of the two hashes
THUMBNAIL = 32
GREY_APART = 0.06  # mean difference of thumbnails, of the range from black to white


def content(record: Record) -> tuple[str, str]:
    """(modality, what rows with the same content share): the compare key, or a digest of pixels or samples."""
    if record.modality == "text":
        return "text", compare_key(record.prompt)
    try:
        if record.modality == "audio":
            samples, rate = read_wav(record.media)
            data = f"{rate} {samples.shape}".encode() + np.ascontiguousarray(samples).tobytes()
        else:
            image = rgb(record.media)
            data = f"{image.size}".encode() + image.tobytes()
    except (UnreadableMedia, UnreadableSound):
        data = record.media  # goes later, with its reason
    return record.modality, hashlib.blake2b(data, digest_size=16).hexdigest()


def copies(records: list[Record]) -> dict[int, str]:
    """Rows of pictures and sounds to drop, and why: an earlier one shows the same and asks the same.

    Another question about it, another answer or another class is kept. `records` in canonical order.
    """
    first: dict[tuple[object, ...], str] = {}
    reasons = {}
    for row, record in enumerate(records):
        if record.modality != "text":
            key = (*content(record), compare_key(record.prompt), record.answer, record.label)
            if key in first:
                reasons[row] = f"exact duplicate of {first[key]}"
            first.setdefault(key, record.id)
    return reasons


def find_pairs(records: list[Record]) -> list[Pair]:
    """Pairs of pictures or sounds that show the same or look alike, sorted by row numbers: they share a group."""
    same: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        same[content(record)].append(row)
    pairs = {(rows[0], row): Pair(rows[0], row, 1.0) for rows in same.values() for row in rows[1:]}
    for pair in look_alike(records):
        pairs.setdefault((pair.first, pair.second), pair)
    return [pairs[place] for place in sorted(pairs)]


def look_alike(records: list[Record]) -> list[Pair]:
    """Pairs of pictures that a copy's re-encoding, scaling or blur may tell apart, sorted by row numbers.

    phash and dhash (64 bits each) propose, the difference of grey thumbnails decides. A crop or a mirror image is
    not found. The third field is one less that difference.
    """
    rows, hashes, thumbnails = [], [], []
    for row, record in enumerate(records):
        if seen := _seen(record):
            rows.append(row)
            hashes.append(seen[0])
            thumbnails.append(seen[1])
    if not rows:
        return []
    bits_N2 = np.array(hashes, np.uint64)
    pairs = []
    for place, row in enumerate(rows):
        apart = np.bitwise_count(bits_N2[place + 1 :] ^ bits_N2[place])
        for other in (place + 1 + np.flatnonzero((apart <= BITS_APART).all(axis=1))).tolist():
            difference = float(np.abs(thumbnails[place].astype(np.int16) - thumbnails[other]).mean()) / 255
            if difference <= GREY_APART:
                pairs.append(Pair(row, rows[other], 1 - difference))
    return pairs


def _seen(record: Record) -> tuple[list[int], np.ndarray] | None:
    import imagehash

    if record.modality != "image":
        return None
    try:
        image = rgb(record.media)
    except UnreadableMedia:
        return None
    if min(image.size) < EDGE_MIN:
        return None
    bits = [int(str(kind(image)), 16) for kind in (imagehash.phash, imagehash.dhash)]
    return bits, np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL)))
