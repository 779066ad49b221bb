"""Memory that a training frees goes back to the kernel, unless the user wants it otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from so8t import resident
from so8t.resident import MALLOC_VARIABLE
from tests.conftest import ROOT

MIB = 1 << 20
KEPT = """
import psutil, torch
from so8t.loop.environment import GIVEN_BACK_FROM_BYTES
from so8t.resident import give_back_freed_memory
give_back_freed_memory(GIVEN_BACK_FROM_BYTES)
numbers, me = 5 << 20, psutil.Process()
# What glibc learns its threshold from.
first = torch.ones(numbers)
del first
before = me.memory_info().rss
held = [(torch.ones(numbers), torch.ones(1 << 14)) for _ in range(10)]
held = [small for _, small in held]
print(me.memory_info().rss - before)
"""


def kept_bytes() -> int:
    """What stays of 200 MiB in buffers that were freed, with a small one alive after each."""
    clean = {name: value for name, value in os.environ.items() if name != MALLOC_VARIABLE}
    done = subprocess.run([sys.executable, "-c", KEPT], cwd=ROOT, env=clean, check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_buffers_leave_no_holes():
    """Without the call it is 200 MiB most times; where the heap cannot grow, glibc maps them anyway."""
    assert kept_bytes() < 20 * MIB


def test_what_the_user_has_set_stays(monkeypatch):
    asked = []
    monkeypatch.setattr(resident.ctypes, "CDLL", lambda name: asked.append(name))
    monkeypatch.setenv(MALLOC_VARIABLE, "33554432")
    resident.give_back_freed_memory(MIB)
    assert asked == []
