"""Adapters to PEFT's folders and back, with PEFT itself as the other side."""

import json

import pytest
import torch
from peft import LoraConfig, OFTConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from so8t.cli import main
from so8t.errors import InputError
from so8t.so8.adapter import Adapters
from so8t.so8.generators import entries_of
from so8t.so8.linear import Placement, Setting
from so8t.so8.peft import export_peft
from so8t.so8.peft_import import import_peft
from so8t.so8.saved import Saved
from tests.so8.test_adapter import ADDED, LINEARS, disturb, ids, make_base  # noqa: F401

NAMES = [f"model.layers.{i}.{name}" for i in range(2) for name in LINEARS]
TOKEN_IDS = {"<a>": 102, "<b>": 100, "<c>": 101}
OFT, LORA = Placement(output=False, input=True), Placement(output=False, rank=4)


def close(found, wanted):
    return float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def ours(folder, placements, rows=True, std=0.2, **setting):
    """A model with disturbed live adapters, whose folder is written too."""
    model = make_base()
    adapters = Adapters(Setting(**{"lora_scale": 2.0, "alpha": 0.7, **setting}))
    adapters.attach(model.model, "model.", placements)
    if rows:
        adapters.attach_rows(model.model, model, ADDED)
    adapters.init_low_rank(torch.Generator().manual_seed(0))
    disturb(adapters, std)
    told = adapters.setting
    Saved(
        adapters.state(), told.alpha, told.rotation_map, told.lora_scale, TOKEN_IDS if rows else {}, "base"
    ).write(folder)  # fmt: skip
    return model


@pytest.fixture
def base(tmp_path):
    make_base().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize(
    ("placement", "setting"),
    [(OFT, {}), (OFT, {"rotation_map": "expm"}), (LORA, {}), (Placement(output=False, rank=3), {"lora_scale": 0.3})],
    ids=["oft", "oft of expm", "lora", "lora of odd scale"],
)
@pytest.mark.parametrize("rows", [True, False], ids=["rows", "no rows"])
@torch.no_grad()
def test_peft_computes_what_we_do_and_merges_to_it_and_it_comes_back(placement, setting, rows, tmp_path, base, ids):  # noqa: F811
    live = ours(tmp_path / "ours", dict.fromkeys(NAMES, placement), rows, **setting)(ids).logits
    export_peft(tmp_path / "ours", tmp_path / "peft", base)
    wrapped = PeftModel.from_pretrained(make_base(), tmp_path / "peft")
    assert close(wrapped(ids).logits, live)
    assert close(wrapped.merge_and_unload()(ids).logits, live)
    assert not close(make_base()(ids).logits, live)
    import_peft(tmp_path / "peft", tmp_path / "again", base)
    again = make_base()
    Saved.read(tmp_path / "again").attach(again.model, again)
    assert close(again(ids).logits, live)


@torch.no_grad()
def test_ranks_of_their_own_and_chosen_layers(tmp_path, ids):  # noqa: F811
    placements = {NAMES[1]: Placement(output=False, rank=4), NAMES[7]: Placement(output=False, rank=2)}
    live = ours(tmp_path / "ours", placements, rows=False)(ids).logits
    config = export_peft(tmp_path / "ours", tmp_path / "peft")
    assert config["target_modules"] == [NAMES[1], NAMES[7]]
    assert config["rank_pattern"] == {NAMES[7]: 2}
    assert close(PeftModel.from_pretrained(make_base(), tmp_path / "peft")(ids).logits, live)


@torch.no_grad()
def test_the_sign_and_the_flag_matter(tmp_path, ids):  # noqa: F811
    live = ours(tmp_path / "ours", dict.fromkeys(NAMES, OFT), rows=False)(ids).logits
    export_peft(tmp_path / "ours", tmp_path / "peft")
    right = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    save_file({name: -tensor for name, tensor in right.items()}, tmp_path / "peft" / "adapter_model.safetensors")
    flipped = PeftModel.from_pretrained(make_base(), tmp_path / "peft")(ids).logits
    assert (flipped - live).abs().max() > 0.05
    save_file(right, tmp_path / "peft" / "adapter_model.safetensors")
    rewrite(tmp_path / "peft", use_cayley_neumann=True, peft_version="0.21.2")
    inverse = PeftModel.from_pretrained(make_base(), tmp_path / "peft")(ids).logits
    assert (inverse - live).abs().max() > 0.05


def rewrite(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8", newline="\n")


def theirs(folder, config, std=0.1):
    """A PEFT model with disturbed adapters, saved."""
    model = get_peft_model(make_base(), config)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(std * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(
    "config",
    [
        OFTConfig(r=0, oft_block_size=8, target_modules=["o_proj", "down_proj"], use_cayley_neumann=False),
        LoraConfig(r=4, lora_alpha=6, target_modules=["qkv_proj"], use_rslora=True),
        LoraConfig(r=4, target_modules="all-linear", rank_pattern={"o_proj": 2}, alpha_pattern={r"0\..*.down_proj": 3}),
        LoraConfig(r=4, target_modules=["o_proj"], trainable_token_indices=[100, 7]),
        LoraConfig(r=4, target_modules=["o_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"),
    ],
    ids=["oft", "rslora", "patterns", "trainable tokens", "whole head"],
)
@torch.no_grad()
def test_what_peft_saved_computes_the_same_here(config, tmp_path, base, ids):  # noqa: F811
    wanted = theirs(tmp_path / "peft", config)(ids).logits
    import_peft(tmp_path / "peft", tmp_path / "ours", base)
    model = make_base()
    Saved.read(tmp_path / "ours").attach(model.model, model)
    assert close(model(ids).logits, wanted)
    assert not close(make_base()(ids).logits, wanted)


@torch.no_grad()
def test_a_neumann_series_is_taken_only_where_it_is_a_rotation(tmp_path, ids):  # noqa: F811
    """PEFT's default, which turns the other way round."""
    config = OFTConfig(r=0, oft_block_size=8, target_modules=["o_proj", "down_proj"], use_cayley_neumann=True)
    theirs(tmp_path / "large", config, std=0.05)
    with pytest.raises(InputError, match="away from rotations"):
        import_peft(tmp_path / "large", tmp_path / "ours")
    import_peft(tmp_path / "large", tmp_path / "ours", tolerance=0.1)
    wanted = theirs(tmp_path / "small", config, std=0.01)(ids).logits
    import_peft(tmp_path / "small", tmp_path / "ours")
    model = make_base()
    Saved.read(tmp_path / "ours").attach(model.model, model)
    assert (model(ids).logits - wanted).abs().max() < 1e-3 * (make_base()(ids).logits - wanted).abs().max()
    rewrite(tmp_path / "small", use_cayley_neumann=False)
    import_peft(tmp_path / "small", tmp_path / "inverse")
    vectors = [load_file(tmp_path / name / "adapter.safetensors") for name in ("ours", "inverse")]
    assert all(torch.allclose(vectors[0][name], -vectors[1][name], atol=1e-4) for name in vectors[0])


@pytest.mark.parametrize(
    ("placements", "wanted"),
    [
        ({NAMES[0]: Placement()}, "rotates inputs only"),
        ({NAMES[0]: Placement(output=False, input=True, rank=2)}, "OFT or LoRA"),
        ({NAMES[0]: OFT, NAMES[1]: LORA}, "2 kinds"),
    ],
)
def test_what_peft_cannot_say_is_refused(placements, wanted, tmp_path):
    ours(tmp_path / "ours", placements)
    with pytest.raises(InputError, match=wanted):
        export_peft(tmp_path / "ours", tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_an_angle_of_pi_and_a_missing_base_are_refused(tmp_path):
    ours(tmp_path / "ours", {NAMES[0]: OFT}, rows=False, rotation_map="expm", alpha=1.0)
    saved = Saved.read(tmp_path / "ours")
    u, v = torch.linalg.qr(torch.randn(8, 2, generator=torch.Generator().manual_seed(0))).Q.T
    saved.state[f"{NAMES[0]}.so8_in"][0] = entries_of(torch.pi * (torch.outer(u, v) - torch.outer(v, u)))
    saved.write(tmp_path / "ours")
    with pytest.raises(InputError, match="angle of pi"):
        export_peft(tmp_path / "ours", tmp_path / "peft")
    ours(tmp_path / "ours", {NAMES[0]: OFT})
    with pytest.raises(InputError, match="no base is given"):
        export_peft(tmp_path / "ours", tmp_path / "peft")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"something_new": 3}, "something_new"),
        ({"peft_type": "VERA"}, "VERA"),
    ],
)
def test_variants_are_refused(changes, wanted, tmp_path):
    theirs(tmp_path / "peft", LoraConfig(r=2, target_modules=["o_proj"]))
    rewrite(tmp_path / "peft", **changes)
    with pytest.raises(InputError, match=wanted):
        import_peft(tmp_path / "peft", tmp_path / "ours")


def test_other_block_sizes_are_refused(tmp_path):
    theirs(tmp_path / "peft", OFTConfig(r=0, oft_block_size=4, target_modules=["o_proj"], use_cayley_neumann=False))
    with pytest.raises(InputError, match="blocks of 8"):
        import_peft(tmp_path / "peft", tmp_path / "ours")


def test_the_command_goes_both_ways(tmp_path, capsys):
    ours(tmp_path / "ours", {NAMES[0]: LORA})
    assert main(["adapter", "export", str(tmp_path / "ours"), str(tmp_path / "peft"), "--base-name", "org/base"]) == 0
    assert PeftConfig.from_pretrained(tmp_path / "peft").base_model_name_or_path == "org/base"
    assert main(["adapter", "import", str(tmp_path / "peft"), str(tmp_path / "again")]) == 0
    assert "LORA on 1 linears" in (told := capsys.readouterr().out)
    assert "4 tensors, 3 rows" in told
    first, again = Saved.read(tmp_path / "ours"), Saved.read(tmp_path / "again")
    assert all(torch.equal(first.state[name], again.state[name]) for name in {**first.state, **again.state})
    assert first.lora_scale == again.lora_scale
    assert main(["adapter", "import", str(tmp_path / "ours"), str(tmp_path / "x")]) == 2
    assert "adapter_config.json" in capsys.readouterr().err
