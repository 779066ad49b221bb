"""Telephone tones (DTMF): 16 keys, each a low and a high sine, ITU-T Q.23.

Noise, level, twist (high over low, within the 8 dB that Q.24 lets administrations ask for), frequency
offset (at most 1.5 %, what a receiver has to accept), timing and phase vary from the seed.
"""

import io
import wave

import numpy as np

from so8t.collect.demo.replies import media_reply
from so8t.collect.gathered import Gathered
from so8t.labels import Label
from so8t.records import Record

RATE_HZ = 8000
LOW_HZ = (697, 770, 852, 941)
HIGH_HZ = (1209, 1336, 1477, 1633)
KEYS = "123A456B789C*0#D"
PROMPTS = {
    "ja": ("何の番号が押されましたか。", "この音はどのキーですか。", "電話の音を聞いて記号を答えてください。"),
    "en": ("Which key was pressed?", "Which telephone key makes this tone?", "Name the key that you hear."),
}


def gather(source: str, count: int, seed: int) -> Gathered:
    """`count` tones, the keys in turn; `media` is 8 kHz mono 16-bit WAV of 0.20-0.30 s.

    Every tone has a generator of its own, so a larger `count` leaves the first ones as they were.
    """
    records = []
    for row in range(count):
        language = ("ja", "en")[row // len(KEYS) % 2]
        key = KEYS[row % len(KEYS)]
        records.append(
            Record(
                id=f"{source}-{row:05d}",
                modality="audio",
                language=language,
                prompt=PROMPTS[language][row // (2 * len(KEYS)) % len(PROMPTS[language])],
                response=media_reply("audio", language, "tone", key),
                answer=key,
                category="tone",
                label=int(Label.ALLOW),
                label_source="human",
                label_confidence=1.0,
                media=_wav(synthesise(key, np.random.default_rng((seed, row)))),
                media_type="audio/wav",
                file="so8t.collect.demo.tones",
                row=row,
                licence="mit",
                licence_evidence="made by this package",
            )
        )
    return Gathered(records, evidence={"seed": seed})


def synthesise(key: str, rng: np.random.Generator) -> "np.ndarray":
    """One tone as float samples within [-1, 1], shape [n], at RATE_HZ."""
    index = KEYS.index(key)
    n = int(rng.uniform(0.20, 0.30) * RATE_HZ)
    length = int(rng.uniform(0.11, 0.16) * RATE_HZ)
    start = int(rng.uniform(0.01, 0.03) * RATE_HZ)
    twist_db = rng.uniform(-4.0, 4.0)
    t = np.arange(length) / RATE_HZ
    tones = [
        10 ** (gain_db / 20) * np.sin(2 * np.pi * hz * (1 + rng.uniform(-0.015, 0.015)) * t + rng.uniform(0, 2 * np.pi))
        for hz, gain_db in ((LOW_HZ[index // 4], -twist_db / 2), (HIGH_HZ[index % 4], twist_db / 2))
    ]
    pair = tones[0] + tones[1]
    edge = RATE_HZ // 200  # 5 ms of rise and fall
    envelope = np.ones(length)
    envelope[:edge] = np.linspace(0, 1, edge)
    envelope[-edge:] = envelope[:edge][::-1]
    samples = np.zeros(n)
    samples[start : start + length] = pair * envelope
    samples *= rng.uniform(0.1, 0.3)
    signal_rms = np.sqrt(np.mean(samples[start : start + length] ** 2))
    noise = rng.standard_normal(n) * signal_rms * 10 ** (-rng.uniform(12.0, 30.0) / 20)
    noisy: np.ndarray = np.clip(samples + noise, -1.0, 1.0)
    return noisy


def _wav(samples: "np.ndarray") -> bytes:
    buffer = io.BytesIO()
    with wave.Wave_write(buffer) as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
