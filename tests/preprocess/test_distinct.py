"""The different values as numpy finds them, without its hash table."""

import platform
import subprocess
import sys

import numpy as np
import pytest

from so8t.preprocess.distinct import distinct
from tests.conftest import ROOT

PEAK = """
import numpy as np
from so8t.preprocess.distinct import distinct
from so8t.resident import memory_peak_bytes
values = np.random.default_rng(0).integers(0, 1 << 40, 1 << 20)
before = memory_peak_bytes()
distinct(values)
print((memory_peak_bytes() - before) / values.size)
"""


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_as_numpy_finds_them(size):
    values = np.random.default_rng(size).integers(0, 300, size).astype(np.uint64)
    found = distinct(values)
    np.testing.assert_array_equal(found, np.unique(values))
    assert found.dtype == values.dtype


@pytest.mark.skipif(platform.system() != "Linux", reason="VmHWM")
def test_it_takes_a_few_bytes_a_value():
    """np.unique's hash table, which tracemalloc does not see, takes 60."""
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, check=True, capture_output=True, text=True)
    assert float(done.stdout) < 30
