"""Two processes train what one trains; killed together, they end in the bytes of an undisturbed pair."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from so8t.launcher import launcher
from tests.conftest import ROOT, listeners
from tests.train import tiny

START_S = 400
ALONE = ("tower", "align", "warmup")


@contextmanager
def pair(*arguments: str) -> Iterator[subprocess.Popen]:
    """Two processes, started as the train step's child starts them."""
    with launcher(2) as launched:
        command = [sys.executable, "-m", *launched.module, *arguments]
        yield subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
            env={**os.environ, **launched.environment},
        )  # fmt: skip


def finish(*arguments: str) -> int:
    with pair(*arguments) as process:
        told, _ = process.communicate(timeout=START_S)
    if process.returncode:
        sys.stdout.write(told[-3000:])
    return process.returncode


def history(home) -> list[dict]:
    lines = (tiny.output(home) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_exchanges_that_nobody_else_can_reach():
    with pair("tests.train.exchange") as process:
        reached = set()
        while process.poll() is None:
            reached |= listeners(process.pid)
            time.sleep(0.02)
        told = process.communicate()[0]
    assert process.returncode == 0, told[-3000:]
    assert reached == {"127.0.0.1"}


def test_two_processes_train_what_one_does(world, whole, tmp_path):
    assert finish("tests.train.tiny", str(world), str(tmp_path), "60") == 0
    alone, together = history(whole), history(tmp_path)
    assert [(row["phase"], row["position"]) for row in alone] == [(row["phase"], row["position"]) for row in together]
    for one, two in zip(alone, together, strict=True):
        if one["phase"] in ALONE:
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    # The second writes nothing but the tokenizer that it reads.
    assert not list((tmp_path / "helper").rglob("*.safetensors"))


def stop(process: subprocess.Popen, how: str) -> None:
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    if how.startswith("SIGTERM"):
        process.terminate()
    else:
        for member in family:
            member.kill()
    process.communicate(timeout=START_S)
    psutil.wait_procs(family, START_S)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["SIGTERM to torchrun", "SIGKILL to all"])
def test_a_pair_that_is_stopped_ends_in_the_same_bytes(world, tmp_path, how):
    assert finish("tests.train.tiny", str(world), str(tmp_path / "whole"), "60") == 0
    stops = 0
    for wanted in (9, 16):
        with pair("tests.train.tiny", str(world), str(tmp_path / "cut"), "0.01") as process:
            while process.poll() is None and newest_step(tmp_path / "cut") < wanted:
                time.sleep(0.02)
            if process.poll() is not None:
                break
            stops += 1
            stop(process, how)
    assert stops
    assert finish("tests.train.tiny", str(world), str(tmp_path / "cut"), "60") == 0
    assert tiny.bytes_of(tmp_path / "cut") == tiny.bytes_of(tmp_path / "whole")


def newest_step(home) -> int:
    sessions = list(home.glob("sessions/*/session.json"))
    try:
        return json.loads(sessions[0].read_text(encoding="utf-8"))["current_step"] if sessions else 0
    except ValueError:
        return 0
