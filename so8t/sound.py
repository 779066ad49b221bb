"""A sound that is really heard: three tones from a player of the system, heard to their end before the caller goes on."""

import array
import io
import math
import shutil
import subprocess
import sys
import wave
from pathlib import Path

from so8t import durable
from so8t.errors import So8tError

RATE_HZ = 44_100
TONE_S = 0.22
# Rising for what went well, falling for what did not.
TONES_HZ = {
    "completed": (523.25, 659.25, 783.99),
    "failed": (392.0, 311.13, 261.63),
    "resume": (523.25, 523.25, 392.0),
    "monitor": (523.25, 392.0, 523.25),
}
# PulseAudio, PipeWire, ALSA, macOS; each waits for the end of what it plays.
PLAYERS = (("paplay",), ("pw-play",), ("aplay", "-q"), ("afplay",))
PLAYER_TIMEOUT_S = 10.0


def wav(kind: str) -> bytes:
    """The tones as a mono 16-bit WAV file, each faded in and out so that it does not click."""
    count = int(RATE_HZ * TONE_S)
    samples = array.array("h")
    for hertz in TONES_HZ[kind]:
        for i in range(count):
            fade = min(1.0, i / 400, (count - i) / 400)
            samples.append(round(12_000 * fade * math.sin(2 * math.pi * hertz * i / RATE_HZ)))
    if sys.byteorder == "big":
        samples.byteswap()
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def play(home: Path, kind: str) -> str:
    """Play it, and give what played it; empty where nothing could."""
    return _play_windows(kind) if sys.platform == "win32" else _play_file(home, kind)


def _play_file(home: Path, kind: str) -> str:
    path, data = home / "sounds" / f"{kind}.wav", wav(kind)
    try:
        if not path.is_file() or path.read_bytes() != data:
            durable.write_bytes(path, data)
    except (OSError, So8tError):
        return ""  # a full disk, perhaps: the very thing to tell of by other channels
    for name, *options in PLAYERS:
        program = shutil.which(name)
        if program and _runs([program, *options, str(path)]):
            return name
    return ""


def _runs(command: list[str]) -> bool:
    """Whether a player ended well; one that hangs, without a sound server for instance, is ended."""
    nothing = subprocess.DEVNULL
    try:
        done = subprocess.run(  # noqa: S603 - a program of PATH and a file of ours
            command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=PLAYER_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _play_windows(kind: str) -> str:
    """Synchronously: a sound that is played in the background ends with its process."""
    import importlib

    winsound = importlib.import_module("winsound")
    try:
        winsound.PlaySound(wav(kind), winsound.SND_MEMORY | winsound.SND_NODEFAULT)
    except RuntimeError:
        try:
            for hertz in TONES_HZ[kind]:
                winsound.Beep(round(hertz), round(TONE_S * 1000))
        except RuntimeError:
            return ""
        return "Beep"
    return "PlaySound"
