"""The language model itself climbs towards a ceiling that is known (benchmarks/ppo_ceiling.py says how far)."""

from statistics import mean

import pytest

from benchmarks import ppo_ceiling


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return ppo_ceiling.make_base(tmp_path_factory.mktemp("ceiling"))


def test_rotations_alone_raise_the_reward_far_above_chance(base):
    curve, parameters = ppo_ceiling.rewards("so8", ppo_ceiling.config_of("so8", 0, 10, 128, 1e-2), base)
    assert parameters > 0
    # 512 tokens, half of which are even by chance: a standard deviation of .02.
    assert 0.4 < curve[0] < 0.6
    assert mean(curve[-3:]) > curve[0] + 0.15
