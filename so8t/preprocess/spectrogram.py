"""Log-mel spectrogram as a square picture: time to the right, pitch upwards, loud is bright."""

import io
import wave
from functools import cache

import numpy as np

WINDOW_S = 0.064
FFT_FACTOR = 4  # zero padding, so that narrow mel bands still meet FFT bins


class UnreadableSound(ValueError):
    """The bytes are no 16-bit PCM WAV."""


def read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """(mono samples within [-1, 1], shape [n]; rate in Hz) of a 16-bit PCM WAV."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            if file.getsampwidth() != 2:
                raise UnreadableSound(f"{8 * file.getsampwidth()}-bit samples; 16-bit wanted")
            channels, rate = file.getnchannels(), file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (wave.Error, EOFError) as error:
        raise UnreadableSound(f"no WAV: {error}") from error
    if not len(samples):
        raise UnreadableSound("no samples")
    return samples.reshape(-1, channels).mean(axis=1) / 32768.0, rate


def hz_to_mel(hz: float) -> float:
    """O'Shaughnessy's mel scale (Speech Communication, 1987): 2595 log10(1 + f / 700)."""
    return float(2595.0 * np.log10(1.0 + hz / 700.0))


@cache
def mel_filters(rate: int, fft: int, bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Triangles of unit peak, equally wide in mel, shape [bands, fft/2 + 1]."""
    mels = np.linspace(hz_to_mel(low_hz), hz_to_mel(high_hz), bands + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = np.linspace(0, rate / 2, fft // 2 + 1)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters: np.ndarray = np.clip(
        np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)), 0, None
    )
    return filters


def log_mel(samples: np.ndarray, rate: int, size: int, low_hz: float, high_hz: float, range_db: float) -> np.ndarray:
    """Shape [size, size] within [0, 1]: `size` bands by `size` moments spread evenly over the sound.

    1 is the loudest cell, 0 lies `range_db` below it. Row 0 is the highest band.
    """
    window = int(WINDOW_S * rate)
    fft = FFT_FACTOR * (1 << (window - 1).bit_length())
    padded = np.pad(samples, (window // 2, window - window // 2))
    starts = np.linspace(0, len(samples), size).astype(int)
    frames = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, fft, axis=1)) ** 2
    mel = power @ mel_filters(rate, fft, size, low_hz, high_hz).T
    decibel = 10.0 * np.log10(np.maximum(mel, 1e-12))
    scaled: np.ndarray = np.clip((decibel - decibel.max()) / range_db + 1.0, 0.0, 1.0)
    return scaled.T[::-1]
