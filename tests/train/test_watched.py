"""What the history says about the rotations while they are trained."""

import json

from tests.train import tiny
from tests.train.tiny import output


def test_every_second_step_says_how_far_the_rotations_are_from_so8(whole):
    lines = (output(whole) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["phase"] in ("warmup", "ppo")]
    watched = [row for row in rows if "orthogonality_error" in row]
    assert [row["position"] % 2 for row in watched] == [watched[0]["position"] % 2] * len(watched)
    assert len(watched) == 3 + len([row for row in rows if row["phase"] == "ppo"]) // 2
    assert all(row["orthogonality_error"] < 1e-5 and row["determinant_error"] < 1e-5 for row in watched)
    assert watched[0]["largest_generator_entry"] == 0 < watched[-1]["largest_generator_entry"]


def test_a_phase_that_ends_early_is_not_gone_on_with(world, tmp_path):
    ppo = tiny.CONFIG.ppo.model_copy(update={"rollback": tiny.CONFIG.ppo.rollback.model_copy(update={"limit": 0})})
    ppo = ppo.model_copy(update={"value_learning_rate": 1e30})
    facts = tiny.train(world, tmp_path, config=tiny.CONFIG.model_copy(update={"ppo": ppo}))
    assert facts["metrics"]["ppo"]["ended_early"]
    rows = map(json.loads, (output(tmp_path) / "history.jsonl").read_text(encoding="utf-8").splitlines())
    done = [row for row in rows if row["phase"] == "ppo"]
    assert 1 <= len(done) < 8
    assert done[-1]["rolled_back"]
