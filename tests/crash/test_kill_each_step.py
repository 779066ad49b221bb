"""SIGKILL of the whole run inside each of the seven steps, then the same command again."""

import os
from pathlib import Path

from so8t.wiring import SEVEN
from tests.conftest import TINY, run

INJECT = Path(__file__).parent / "inject"
# Step -> which durable rename inside it is the last thing that happens.
KILLS = {"collect": 1, "preprocess": 2, "train": 4, "bake": 1, "benchmark": 2, "upload": 3, "cleanup": 1}


def test_killed_in_every_step_it_ends_in_the_same_bytes(tiny, tmp_path):
    home = tmp_path / "home"
    finished: set[str] = set()
    for step, nth in KILLS.items():
        fired = tmp_path / f"killed-{step}"
        environment = {
            "PYTHONPATH": os.pathsep.join([str(INJECT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "SO8T_KILL_AT": f"{step}:{nth}",
            "SO8T_KILL_ROOT": str(fired),
        }
        killed = run(*TINY, home=home, environment=environment)
        assert fired.exists(), f"no kill happened in {step}: {killed.err[-2000:]}"
        assert killed.code == -9, (step, killed.code, killed.err[-2000:])
        done = {p.parent.name + "/" + p.name for p in (home / "artifacts").glob("*/*") if "." not in p.name}
        assert finished <= done, f"a finished artifact vanished in {step}"
        assert not any(name.startswith(step + "/") for name in done - finished), f"{step} was whole already"
        finished = done
    last = run(*TINY, home=home)
    assert last.code == 0, last.err[-4000:]
    assert [ref.step for ref in SEVEN if not last.json["steps"][ref.step]["cached"]] == ["cleanup"]
    assert {n: s["content"] for n, s in last.json["steps"].items()} == {
        n: s["content"] for n, s in tiny.json["steps"].items()
    }
    assert not list((home / "artifacts").glob("*/*.damaged-*"))
