"""The benchmark for a GPU works from end to end at a small size, and refuses a machine without one."""

import json
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu.phi35", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=600, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the program asks for")
def test_without_cuda_it_refuses():
    done = run()
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert "--tiny" in done.stderr


def test_the_small_form_resumes_exactly_and_tells_all(tmp_path):
    done = run(
        "--tiny", "--device", "cpu", "--profiles", "12gb", "--interval", "0.01", "--json", str(tmp_path / "t.json")
    )
    assert done.returncode == 0, done.stderr[-2000:]
    case = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["profiles"]["12gb"]
    assert case["exact"]
    assert case["killed_in_time"]
    assert case["tokens_per_s"] > case["reply_tokens_per_s"] > 0
    assert case["checkpoints"]["count"] > 0
    assert "the same bytes" in done.stdout
