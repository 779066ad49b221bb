"""Every picture and sound as the one thing the image tower reads: a square RGB PNG."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from so8t.preprocess.config import RowByRow
from so8t.preprocess.spectrogram import UnreadableSound, log_mel, read_wav
from so8t.records import Record

PIXELS_MAX = 50_000_000  # a small file can unpack to gigabytes


class UnreadableMedia(ValueError):
    """The row's media cannot become a picture; the text is the reason kept beside it."""


def picture(record: Record, config: RowByRow) -> bytes:
    """PNG of `image_size` squared; pictures are stretched, sounds become log-mel spectrograms."""
    image = _sound(record, config) if record.modality == "audio" else _image(record, config)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


def _sound(record: Record, config: RowByRow) -> Image.Image:
    try:
        samples, rate = read_wav(record.media)
    except UnreadableSound as error:
        raise UnreadableMedia(f"unreadable sound: {error}") from None
    if rate < 2 * config.mel_high_hz:
        raise UnreadableMedia(f"unreadable sound: {rate} Hz cannot carry {config.mel_high_hz:g} Hz")
    cells = log_mel(samples, rate, config.image_size, config.mel_low_hz, config.mel_high_hz, config.mel_range_db)
    return Image.fromarray(np.round(cells * 255).astype(np.uint8), mode="L")


def _image(record: Record, config: RowByRow) -> Image.Image:
    return rgb(record.media).resize((config.image_size,) * 2, Image.Resampling[config.resampling.upper()])


def rgb(media: bytes) -> Image.Image:
    """The picture in RGB; UnreadableMedia for what is none or too large."""
    try:
        with Image.open(io.BytesIO(media)) as opened:
            if opened.width * opened.height > PIXELS_MAX:
                raise UnreadableMedia(f"unreadable picture: over {PIXELS_MAX} pixels")
            return opened.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UnreadableMedia(f"unreadable picture: {type(error).__name__}") from None
