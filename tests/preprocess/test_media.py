"""Same content in other containers, and pictures that look alike."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from so8t.preprocess import joins, media
from so8t.preprocess.config import Preprocess
from so8t.preprocess.media import content
from so8t.records import Record
from tests.preprocess.test_pictures import sine, wav
from tests.preprocess.whole import indexed


def photo(seed: int, edge: int = 160) -> Image.Image:
    """Smooth colours and some edges, as pictures have them."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((edge, edge), Image.Resampling.BICUBIC)
    for _ in range(4):
        x, y = rng.integers(0, edge - 40, 2).tolist()
        image.paste(tuple(rng.integers(0, 256, 3).tolist()), (x, y, x + 30, y + 30))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def picture(media: bytes) -> Record:
    return Record("x", "image", "en", "what is it?", media=media)


def look_alike(rows):
    """On the rows themselves, where the step reads hashes and thumbnails from its shards."""
    looks = {row: look for row, record in enumerate(rows) if (look := media.seen(record))}
    held = list(looks)
    bits = np.array([looks[row].bits for row in held], np.uint64).reshape(-1, 2)
    pairs = media.look_alike(bits, lambda places: {int(place): looks[held[place]].thumbnail for place in places})
    return [(held[pair.first], held[pair.second]) for pair in pairs]


def test_content_is_what_is_seen_and_heard():
    image = photo(1)
    assert content(picture(encoded(image))) == content(picture(encoded(image, "BMP")))
    assert content(picture(encoded(image))) != content(picture(encoded(photo(2))))
    sound = Record("x", "audio", "en", "?", media=wav(sine(700)))
    size = (len(sound.media) + 4).to_bytes(4, "little")
    longer_header = b"RIFF" + size + sound.media[8:36] + b"LIST\x04\x00\x00\x00INFO" + sound.media[36:]
    assert content(sound) == content(sound.with_(media=longer_header))
    assert content(sound) != content(sound.with_(media=wav(sine(800))))
    assert content(picture(b"no picture")) == content(picture(b"no picture")) != content(picture(b"neither"))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: encoded(image, "JPEG", quality=30),
        lambda image: encoded(image.resize((97, 97))),
        lambda image: encoded(image.filter(ImageFilter.GaussianBlur(1.0))),
    ],
    ids=["jpeg", "scaled", "blurred"],
)
def test_copies_look_alike(change):
    images = [photo(seed) for seed in range(20)]
    rows = [picture(encoded(image)) for image in images] + [picture(change(image)) for image in images]
    assert look_alike(rows) == [(row, row + 20) for row in range(20)]


def test_other_pictures_do_not():
    rows = [picture(encoded(photo(seed))) for seed in range(100)]
    assert len(list(combinations(rows, 2))) == 4950
    assert look_alike(rows) == []


def test_flat_small_and_broken_pictures():
    flat = [picture(encoded(Image.new("RGB", (64, 64), colour))) for colour in ("black", "white")]
    small = [picture(encoded(photo(1, 50).resize((8, 8)))) for _ in range(2)]
    assert look_alike([*flat, *small, picture(b"x"), picture(b"x")]) == []


def test_another_question_about_a_picture_is_kept_beside_it(tmp_path):
    one, other = encoded(photo(1)), encoded(photo(1), "BMP")
    rows = [
        picture(one).with_(id="first", label=0, answer="tree"),
        picture(other).with_(label=0, answer="tree", prompt="What is it ?!"),
        picture(other).with_(label=0, answer="green", prompt="Which colour?"),
        picture(one).with_(label=2, answer="tree"),
        picture(encoded(photo(1).resize((97, 97)))).with_(label=0),
        Record("x", "text", "en", "what is it?"),
        Record("x", "text", "en", "what is it?"),
    ]
    index = indexed([record.with_(row=row) for row, record in enumerate(rows)], tmp_path)
    shown = joins.near_media(index)
    assert {(pair.first, pair.second) for pair in shown} >= {(0, 1), (0, 2), (0, 3), (0, 4)}
    joins.place(index, [], shown, Preprocess())
    reasons = [index.reasons.text(row, index.ids) for row in range(len(rows))]
    assert reasons == ["", "exact duplicate of first", *[""] * 5]
    assert len(set(index.split_N[[0, 2, 3, 4]])) == 1
