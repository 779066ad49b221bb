"""A whole training on a 4-bit base, with the adapters' less usual settings: killed, and the bytes are the same."""

import json
import signal

import pytest
from safetensors import safe_open

from so8t.so8.adapted import load_system
from tests.train import tiny


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    home = tmp_path_factory.mktemp("nf4")
    tiny.train(world, home, interval_s=1000.0, config=tiny.CONFIGS["nf4"])
    return home


def test_killed_it_ends_in_the_same_bytes(world, trained, forge, tmp_path):
    assert forge.start(world, tmp_path, 0.01, 0, "auto", "nf4").stop_when("ppo 2/4", signal.SIGKILL) == -9
    assert forge.start(world, tmp_path, 0.01, 0, "auto", "nf4").wait() == 0
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(trained)


def test_the_artifact_holds_what_was_placed_and_loads(world, trained):
    out = tiny.output(trained)
    with safe_open(out / "adapter" / "adapter.safetensors", "pt") as file:
        names = {name.removeprefix("model.layers.") for name in file.keys() if name.startswith("model.")}  # noqa: SIM118
        moved = file.get_tensor("model.layers.1.mlp.down_proj.so8_in").abs().max()
    assert names == {
        "1.mlp.down_proj.lora_a", "1.mlp.down_proj.lora_b", "1.mlp.down_proj.so8_in", "1.self_attn.o_proj.so8_out",
    }  # fmt: skip
    assert moved > 0
    adapters = load_system(world / "base", out, adapted=True).text_adapters
    assert adapters is not None
    assert adapters.setting.rotation_map == "expm"
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    watched = [row["orthogonality_error"] for row in rows if "orthogonality_error" in row]
    assert len(watched) > 2
    assert max(watched) < 1e-5
