"""The sound is a real one, from the first player that works, to its end."""

import io
import os
import shutil
import subprocess
import sys
import time
import types
import wave
from pathlib import Path

import numpy as np
import pytest

from so8t import sound
from so8t.config import Notify
from so8t.notify import notify


def tones(samples: np.ndarray, rate_hz: int, parts: int) -> list[float]:
    """The loudest frequency of each of so many equal parts, in hertz."""
    found = []
    for part in np.array_split(samples.astype(float), parts):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 18))
        found.append(float(spectrum.argmax()) * rate_hz / (1 << 18))
    return found


@pytest.mark.parametrize("kind", sound.TONES_HZ)
def test_the_file_holds_its_tones(kind):
    with wave.open(io.BytesIO(sound.wav(kind))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, sound.RATE_HZ)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert tones(samples, sound.RATE_HZ, 3) == pytest.approx(sound.TONES_HZ[kind], abs=2.0)


@pytest.fixture
def players(tmp_path, monkeypatch):
    """Gives a function that puts programs of these names and bodies in front of nothing."""
    if os.name == "nt":
        pytest.skip("the stand-ins are shell scripts")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(**bodies: str) -> None:
        for name, body in bodies.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n", encoding="ascii")
            (folder / name).chmod(0o755)

    return put


def test_the_first_player_that_works_is_taken(players, tmp_path):
    log = tmp_path / "log"
    players(paplay="exit 1", aplay=f'echo "$@" > {log}', afplay="exit 1")
    assert sound.play(tmp_path, "failed") == "aplay"
    options, _, file = log.read_text(encoding="utf-8").strip().partition(" ")
    assert (options, Path(file).read_bytes()) == ("-q", sound.wav("failed"))


def test_a_player_that_hangs_is_ended(players, tmp_path, monkeypatch):
    monkeypatch.setattr(sound, "PLAYER_TIMEOUT_S", 0.2)
    players(paplay="exec /bin/sleep 60", aplay="exit 0")
    assert sound.play(tmp_path, "completed") == "aplay"


def test_without_a_player_or_a_disk_the_notice_still_goes_out(players, tmp_path):
    (outcome,) = notify(tmp_path, "completed", "title", "", Notify())
    assert (outcome.channel, outcome.problem[:15]) == ("sound", "found no player")
    players(aplay="exit 0")
    (tmp_path / "blocked").write_bytes(b"a file where the home should be")
    assert sound.play(tmp_path / "blocked", "completed") == ""


@pytest.mark.parametrize(
    ("broken", "heard"), [((), "PlaySound"), (("PlaySound",), "Beep"), (("PlaySound", "Beep"), "")]
)
def test_windows_plays_synchronously_then_beeps(tmp_path, monkeypatch, broken, heard):
    calls = []

    def act(name, *arguments):
        calls.append((name, *arguments))
        if name in broken:
            raise RuntimeError("Failed to play sound")

    module = types.SimpleNamespace(SND_MEMORY=4, SND_NODEFAULT=2, SND_ASYNC=1)
    module.PlaySound = lambda data, flags: act("PlaySound", data, flags)
    module.Beep = lambda hertz, milliseconds: act("Beep", hertz, milliseconds)
    monkeypatch.setitem(sys.modules, "winsound", module)
    monkeypatch.setattr(sound.sys, "platform", "win32")
    assert sound.play(tmp_path, "resume") == heard
    assert calls[0] == ("PlaySound", sound.wav("resume"), 6)
    if heard == "Beep":
        assert [call[1] for call in calls[1:]] == [523, 523, 392]


@pytest.mark.oracle
@pytest.mark.skipif(not all(map(shutil.which, ("pulseaudio", "paplay", "parec"))), reason="needs PulseAudio")
def test_it_is_really_heard(tmp_path, monkeypatch):
    """PulseAudio plays it into a sink that leads nowhere, and what that sink was given is recorded."""
    address = f"unix:{tmp_path}/socket"
    monkeypatch.setenv("PULSE_SERVER", address)
    monkeypatch.setenv("PULSE_RUNTIME_PATH", str(tmp_path / "runtime"))
    monkeypatch.setenv("HOME", str(tmp_path))
    server = subprocess.Popen(
        ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes",
         "-L", "module-null-sink sink_name=nowhere rate=44100",
         "-L", f"module-native-protocol-unix socket={tmp_path}/socket auth-anonymous=1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    recorder = None
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "socket").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        recorded = tmp_path / "recorded"
        with recorded.open("wb") as file:
            recorder = subprocess.Popen(
                ["parec", "-d", "nowhere.monitor", "--format=s16le", "--rate=44100", "--channels=1", "--latency-msec=20"],
                stdout=file, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while recorded.stat().st_size == 0 and time.monotonic() < deadline:
                time.sleep(0.05)
            (outcome,) = notify(tmp_path, "failed", "title", "", Notify())
            time.sleep(0.5)
            recorder.terminate()
            recorder.wait()
    finally:
        for process in (recorder, server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
    assert outcome.how == "paplay"
    heard = np.frombuffer(recorded.read_bytes(), "<i2")
    loud = np.flatnonzero(np.abs(heard) > 500)
    sounding = heard[loud[0] : loud[-1]]
    assert len(sounding) / sound.RATE_HZ == pytest.approx(3 * sound.TONE_S, abs=0.1), "to its end"
    assert tones(sounding, sound.RATE_HZ, 3) == pytest.approx(sound.TONES_HZ["failed"], abs=5.0)
