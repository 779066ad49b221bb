import os
import subprocess
import sys

import psutil
import pytest

from so8t import server_state
from so8t.births import birth


def test_a_process_is_told_from_a_later_one_of_its_number():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        born = birth(child.pid)
        assert born == birth(child.pid) != birth(os.getpid())
        state = {"pid": child.pid, "born": born}
        assert server_state.lives(state)
        assert not server_state.lives({**state, "born": born + "0"})
        assert not server_state.lives({"pid": child.pid, "create_time": 1.0}), "as an older version wrote it"
        child.communicate()
    assert not server_state.lives(state)
    with pytest.raises(psutil.NoSuchProcess):
        birth(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the time of creation is recorded, not computed")
def test_a_clock_that_is_set_changes_nothing(monkeypatch):
    """What psutil says moves then with the time of the boot."""
    born, created = birth(os.getpid()), psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created + 3600.0)
    assert birth(os.getpid()) == born
    assert server_state.lives({"pid": os.getpid(), "born": born})
