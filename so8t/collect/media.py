"""Pictures and sounds as they come: what they really are, and whether they can be read."""

import io
import wave
from typing import NamedTuple

from so8t.collect import tables
from so8t.errors import InputError
from so8t.records import Modality

PIXELS_MAX = 50_000_000
BYTES_MAX = 64 << 20
# Pillow's name of a format -> its media type.
IMAGES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
SOUNDS = {b"fLaC": "FLAC", b"OggS": "Ogg"}


class NotMedia(ValueError):
    """The bytes are no picture and no sound that is read here; the text says what they are."""


class Media(NamedTuple):
    """What a row of media carries: pictures as they came, sounds as WAV."""

    modality: Modality
    data: bytes
    type: str


def recognise(data: bytes) -> Media:
    """The media in some bytes, by what they are and not by a file's name; NotMedia says why they are none."""
    if len(data) > BYTES_MAX:
        raise NotMedia(f"media of more than {BYTES_MAX >> 20} MiB")
    if found := tables.fault(data[:512], b"", ""):
        raise NotMedia(f"media is {found}")
    if data[:4] in SOUNDS:
        return Media("audio", _wav_of(data, SOUNDS[data[:4]]), "audio/wav")
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return Media("audio", _checked_wav(data), "audio/wav")
    return Media("image", data, _image_type(data))


def _image_type(data: bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=list(IMAGES)) as image:
            if image.width * image.height > PIXELS_MAX:
                raise NotMedia(f"picture of more than {PIXELS_MAX} pixels")
            image.load()
            return IMAGES[str(image.format)]
    except UnidentifiedImageError:
        raise NotMedia("media is neither a picture nor a sound that is read here") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, NotMedia):
            raise
        raise NotMedia(f"broken or truncated picture ({type(error).__name__})") from None


def _checked_wav(data: bytes) -> bytes:
    try:
        with wave.open(io.BytesIO(data)) as sound:
            wanted = sound.getnframes() * sound.getnchannels() * sound.getsampwidth()
            if not wanted or len(sound.readframes(sound.getnframes())) < wanted:
                raise NotMedia("empty or truncated WAV")
    except (wave.Error, EOFError) as error:
        raise NotMedia(f"broken WAV, or one that is not PCM ({error})") from None
    return data


def _wav_of(data: bytes, name: str) -> bytes:
    """FLAC and Ogg as 16-bit WAV, channels and rate kept."""
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise InputError(
            f"a {name} file and {error.name} is not installed", "what reads sounds other than WAV",
            'pip install -c constraints.txt "so8t[audio]"',
        ) from error  # fmt: skip
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError):
        raise NotMedia(f"broken or truncated {name}") from None
    if not len(samples):
        raise NotMedia(f"empty {name}")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(samples.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()
