"""Sounds and pictures as the tower reads them."""

import io
import wave
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from so8t.preprocess.config import Preprocess
from so8t.preprocess.pictures import UnreadableMedia, picture
from so8t.preprocess.spectrogram import log_mel, mel_filters
from so8t.records import Record

CONFIG = Preprocess()
LOW_HZ, HIGH_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)


def wav(samples: np.ndarray, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def sine(hz: float, seconds: float = 0.25, rate: int = 8000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def rows_of(hz: float) -> int:
    cells = log_mel(sine(hz), 8000, 32, CONFIG.mel_low_hz, CONFIG.mel_high_hz, CONFIG.mel_range_db)
    return int(cells[:, 16].argmax())


def test_a_higher_tone_lies_higher_and_all_eight_lie_apart():
    places = [rows_of(hz) for hz in (*LOW_HZ, *HIGH_HZ)]
    assert places == sorted(places, reverse=True)
    assert min(a - b for a, b in pairwise(places)) >= 2


def test_an_offset_within_the_standard_keeps_the_tones_apart():
    """1.5 % up on one tone and down on the next must not make them one row."""
    for low, high in pairwise(LOW_HZ):
        assert rows_of(low * 1.015) > rows_of(high * 0.985)


def test_every_mel_band_hears_something():
    filters = mel_filters(8000, 2048, 32, CONFIG.mel_low_hz, CONFIG.mel_high_hz)
    assert filters.shape == (32, 1025)
    assert (filters.sum(axis=1) > 0).all()


def sound(data: bytes) -> Record:
    return Record("a", "audio", "en", "?", media=data, media_type="audio/wav")


def test_pictures_are_square_rgb():
    png = picture(sound(wav(sine(697))), CONFIG)
    assert (Image.open(io.BytesIO(png)).size, Image.open(io.BytesIO(png)).mode) == ((32, 32), "RGB")
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "PNG")
    scan = Record("i", "image", "en", "?", media=buffer.getvalue(), media_type="image/png")
    assert Image.open(io.BytesIO(picture(scan, CONFIG))).size == (32, 32)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (sound(b""), "no WAV"),
        (sound(b"RIFFxxxx"), "no WAV"),
        (sound(wav(np.zeros(0))), "no samples"),
        (sound(wav(sine(697, rate=2000), rate=2000)), "cannot carry"),
        (Record("i", "image", "en", "?", media=b"no picture"), "unreadable picture"),
    ],
)
def test_unreadable_media_say_why(record, reason):
    with pytest.raises(UnreadableMedia, match=reason):
        picture(record, CONFIG)


def test_silence_is_a_picture_too():
    assert picture(sound(wav(np.zeros(2000))), CONFIG)
