"""Which rows say or show the same, whatever holds it, and which pictures look alike."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


def copies(
    same_N: np.ndarray, asked_N: np.ndarray, labels_N: np.ndarray, among: np.ndarray
) -> Iterator[tuple[int, int]]:
    """(row to drop, row that stays) of pictures and sounds: an earlier one shows the same and asks the same.

    Another question about it, another answer or another class is kept. `same_N`: the first row with the same content;
    `asked_N`: a hash of question and answer; `among`: the rows that count, by precedence.
    """
    first: dict[tuple[int, int, int], int] = {}
    for row in among.tolist():
        earlier = first.setdefault((int(same_N[row]), int(asked_N[row]), int(labels_N[row])), row)
        if earlier != row:
            yield row, earlier


def look_alike(bits_N2: np.ndarray, thumbnails: Callable[[np.ndarray], dict[int, np.ndarray]]) -> list[Pair]:
    """Pairs of pictures that a copy's re-encoding, scaling or blur may tell apart, sorted by row numbers.

    phash and dhash (64 bits each) propose, the difference of grey thumbnails, asked for by ascending rows, decides. A
    crop or a mirror image is not found. The third field is one less that difference.
    """
    met: list[tuple[int, int]] = []
    for row, bits_2 in enumerate(bits_N2):
        apart_N2 = np.bitwise_count(bits_N2[row + 1 :] ^ bits_2)
        met += [(row, row + 1 + int(other)) for other in np.flatnonzero((apart_N2 <= BITS_APART).all(axis=1))]
    held = thumbnails(np.unique(np.array(met, np.int64)))
    pairs = []
    for row, other in met:
        difference = float(np.abs(held[row].astype(np.int16) - held[other]).mean()) / 255
        if difference <= GREY_APART:
            pairs.append(Pair(row, other, 1 - difference))
    return pairs


@dataclass(frozen=True)
class Seen:
    """What a picture looks like: phash and dhash, and a grey thumbnail, uint8 [THUMBNAIL, THUMBNAIL]."""

    bits: tuple[int, int]
    thumbnail: np.ndarray


def seen(record: Record) -> Seen | None:
    """None for what is no picture, or too small a one."""
    import imagehash

    if record.modality != "image":
        return None
    try:
        image = rgb(record.media)
    except UnreadableMedia:
        return None
    if min(image.size) < EDGE_MIN:
        return None
    phash, dhash = (int(str(kind(image)), 16) for kind in (imagehash.phash, imagehash.dhash))
    return Seen((phash, dhash), np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL))))
