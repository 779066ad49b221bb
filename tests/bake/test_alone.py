"""Adapters that PEFT made, baked without a training; PEFT itself is the other side."""

import json
import shutil

import pytest
import torch
from peft import IA3Config, LoraConfig, OFTConfig, get_peft_model
from safetensors.torch import load_file, save_file

from so8t import durable, models
from so8t.artifacts import Store
from so8t.bake import alone, fold
from so8t.bake.alone import folder_as_artifact as as_artifact
from so8t.bake.config import Fold
from so8t.bake.material import material_of
from so8t.cli import DEFAULT_CONFIG, main
from so8t.config import load_config
from so8t.errors import InputError
from so8t.so8.saved import Saved
from tests.bake import shapes
from tests.bake.conftest import ALPHA

LINEARS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
IDS = torch.tensor([[5, 300, 17, 9, 44, 8, 120, 33]])


@pytest.fixture(scope="module")
def base(world, tmp_path_factory):
    """The tiny base in fp32, so that what is baked is not rounded to bf16."""
    folder = tmp_path_factory.mktemp("base") / "base"
    shutil.copytree(world.base.path, folder)
    for path in folder.glob("*.safetensors"):
        save_file({name: tensor.float() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    return folder


def disturbed(base, config):
    """A live PEFT model whose adapter does something."""
    model = get_peft_model(models.load_base(base), config)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, lora_alpha=6, target_modules=LINEARS, use_rslora=True, rank_pattern={"o_proj": 2}),
        LoraConfig(r=4, target_modules=["o_proj"], layers_to_transform=[1], trainable_token_indices=[100, 7]),
        OFTConfig(r=0, oft_block_size=8, target_modules=LINEARS, use_cayley_neumann=False),
        OFTConfig(r=0, oft_block_size=32, target_modules=["qkv_proj", "down_proj"]),
    ],
    ids=["rslora with ranks", "lora on one layer with token rows", "exact oft", "oft by its defaults"],
)
@torch.no_grad()
def test_baked_folder_computes_what_peft_does(base, config, progress, tmp_path):
    live = disturbed(base, config)
    live.save_pretrained(tmp_path / "peft")
    wanted = live(input_ids=IDS).logits
    inputs = {"base": as_artifact(base), "train": as_artifact(tmp_path / "peft")}
    (tmp_path / "out").mkdir()
    fold.run(Fold(), inputs, tmp_path / "out", progress)
    baked = models.load_base(tmp_path / "out" / "hf")(input_ids=IDS).logits
    assert (baked - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    plain = models.load_base(base)(input_ids=IDS).logits
    assert (plain - wanted).abs().max() > 0.01 * wanted.abs().max()


def with_tokenizer(folder, base):
    """A tokenizer as save_pretrained leaves it: without the model's config.json."""
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        if (base / name).is_file():
            shutil.copy(base / name, folder / name)
    return folder


def lengthened(folder, length):
    path = folder / "tokenizer_config.json"
    durable.write_json(path, {**durable.read_json(path), "model_max_length": length})


NAMED = ("--model-name", "my-phi3", "--gguf-only")
GATES = ["f16_top1_min=0.9", "texts=3", "f16_kl_max=1.0e-4"]


def bake(home, base, adapter, *more):
    chosen = [f"bake.gates.{gate}" for gate in GATES] + ["bake.quantizations=[]", "machine.threads=1"]
    sets = [word for setting in chosen for word in ("--set", setting)]
    return main(["step", "bake", "--adapter", str(adapter), "--base", str(base), "--home", str(home), *sets, *more])


def test_command_bakes_and_proves_an_adapter_of_peft_and_a_second_run_finds_it(world, tmp_path, capsys):
    config = LoraConfig(r=2, target_modules=LINEARS)
    disturbed(world.base.path, config).save_pretrained(tmp_path / "peft")
    lengthened(with_tokenizer(tmp_path / "peft", world.base.path), 77)
    assert bake(tmp_path / "home", world.base.path, tmp_path / "peft", *NAMED, "--json") == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert 0 < facts["parity"]["fold"]["relative_error"] <= 1e-5
    assert facts["parity"]["F32"]["difference_max"] <= 1e-4
    store = Store(tmp_path / "home")
    made = {found.manifest.step: found for found in store.all()}
    assert set(made) == {"bake.fold", "bake"}
    assert list(made["bake.fold"].path.rglob("*.safetensors")) == []
    # The tokenizer that trainers save beside the adapter is the one that is taken.
    assert durable.read_json(made["bake.fold"].path / "hf" / "tokenizer_config.json")["model_max_length"] == 77
    gguf = made["bake.fold"].path / "gguf" / "my-phi3-F16.gguf"
    written = gguf.stat().st_mtime_ns
    assert bake(tmp_path / "home", world.base.path, tmp_path / "peft", *NAMED) == 0
    assert gguf.stat().st_mtime_ns == written


def test_command_takes_an_adapter_of_ours(world, tmp_path, capsys):
    """On its own, without the training around it: no tower, and the base's tokenizer."""
    adapter = tmp_path / "ours"
    saved = Saved.read(world.train.path / "adapter")
    Saved({k: v for k, v in saved.state.items() if not k.startswith("token_rows")}, ALPHA, lora_scale=0.5).write(
        adapter
    )
    assert bake(tmp_path / "home", world.base.path, adapter, "--json") == 0
    assert json.loads(capsys.readouterr().out)["facts"]["parity"]["fold"]["relative_error"] <= 1e-5


def test_missed_gate_fails_the_step_and_keeps_its_files(world, lora, tmp_path, capsys):
    home = tmp_path / "home"
    impossible = ("--set", "bake.gates.fold_error_max=1.0e-20", "--set", "bake.speed.repeats=0")
    for number in (1, 2):
        assert bake(home, world.base.path, lora, *impossible) == 1
        said = capsys.readouterr().err
        assert "live against folded, relative logit error" in said
        assert "wanted <= 1e-20, missed by" in said
        (kept,) = (home / "artifacts" / "bake").glob(f"*.damaged-{number}")
        assert str(kept) in said
        assert "MISSED" in (kept / "gates.md").read_text(encoding="utf-8")
    assert not [path for path in (home / "artifacts" / "bake").iterdir() if ".damaged-" not in path.name]
    # What was measured stays: a looser ceiling makes none of it again.
    assert [found.manifest.step for found in Store(home).all()] == ["bake.fold"]


@pytest.mark.soak
def test_command_bakes_a_base_like_phi_4_mini(tmp_path, capsys):
    """Byte-level BPE, a tied head, grouped queries, half of each head rotated by position."""
    base = shapes.write(tmp_path / "base", shapes.Shape(bpe=True, tied=True, kv_heads=2, rotary_share=0.5))
    disturbed(base, LoraConfig(r=4, target_modules=["qkv_proj", "down_proj"])).save_pretrained(tmp_path / "peft")
    marks = ("--set", "bake.gates.texts_differ_max=4")
    assert bake(tmp_path / "home", base, tmp_path / "peft", *marks, "--json") == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["parity"]["F32"]["difference_max"] <= 1e-4


def test_adapter_of_another_base_of_the_same_shape_is_refused(world, tmp_path):
    adapter = tmp_path / "ours"
    shutil.copytree(world.train.path / "adapter", adapter)
    durable.write_json(
        adapter / "adapter.json", {**durable.read_json(adapter / "adapter.json"), "base_content": "f" * 64}
    )
    with pytest.raises(InputError, match="trained on a base with content ffffffffffff"):
        material_of({"base": world.base, "train": as_artifact(adapter)})


def rewritten(folder, **changes):
    path = folder / "adapter_config.json"
    durable.write_json(path, {**durable.read_json(path), **changes})


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda base, peft: rewritten(peft, use_dora=True), "use_dora"),
        (lambda base, peft: rewritten(peft, peft_type="IA3"), "peft_type IA3"),
        (lambda base, peft: rewritten(peft, bias="all"), "bias: all"),
        (lambda base, peft: (peft / "adapter_model.safetensors").rename(peft / "adapter_model.bin"), "as safetensors"),
        (lambda base, peft: (peft / "adapter_config.json").unlink(), "neither adapter.json nor adapter_config.json"),
        (lambda base, peft: rewritten_config(base, architectures=["LlamaForCausalLM"]), "LlamaForCausalLM"),
        (lambda base, peft: narrower(peft), "does not fit"),
        (lambda base, peft: deeper(peft), "use the base that it was trained on"),
    ],
    ids=["dora", "ia3", "bias", "pickle", "no adapter", "llama", "another width", "more layers"],
)
def test_what_cannot_be_folded_is_refused_with_exit_2(base, lora, break_it, says, tmp_path, capsys):
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(lora, tmp_path / "peft")
    break_it(tmp_path / "base", tmp_path / "peft")
    assert bake(tmp_path / "home", tmp_path / "base", tmp_path / "peft") == 2
    assert says in capsys.readouterr().err


@pytest.fixture(scope="module")
def lora(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    disturbed(base, LoraConfig(r=2, target_modules=["o_proj"])).save_pretrained(folder)
    return folder


def rewritten_config(base, **changes):
    durable.write_json(base / "config.json", {**durable.read_json(base / "config.json"), **changes})


def narrower(peft):
    path = peft / "adapter_model.safetensors"
    save_file({k: v[:, :64].contiguous() if "lora_A" in k else v for k, v in load_file(path).items()}, path)


def deeper(peft):
    path = peft / "adapter_model.safetensors"
    save_file({k.replace("layers.1.", "layers.7."): v for k, v in load_file(path).items()}, path)


def test_a_real_ia3_adapter_is_refused(base, tmp_path, capsys):
    config = IA3Config(target_modules=["qkv_proj", "down_proj"], feedforward_modules=["down_proj"])
    disturbed(base, config).save_pretrained(tmp_path / "peft")
    assert bake(tmp_path / "home", base, tmp_path / "peft") == 2
    assert "IA3" in capsys.readouterr().err


def test_options_go_together(tmp_path, capsys):
    assert main(["step", "bake", "--adapter", str(tmp_path)]) == 2
    assert "--base DIR" in capsys.readouterr().err
    both = ["--adapter", str(tmp_path), "--base", str(tmp_path)]
    assert main(["step", "train", *both]) == 2


def test_a_tokenizer_beside_the_adapter_counts_by_its_content(world, tmp_path, monkeypatch):
    """A published repository holds adapter/ and tokenizer/ side by side."""
    tokenizer = with_tokenizer(tmp_path / "tokenizer", world.train.path / "tokenizer")
    shutil.copytree(world.train.path / "adapter", tmp_path / "adapter")
    keys = []
    monkeypatch.setattr(alone, "make", lambda planned, *rest: keys.append(planned.key) or planned.inputs["base"])
    for length in (77, 77, 78):
        lengthened(tokenizer, length)
        config = load_config(DEFAULT_CONFIG, ["bake.quantizations=[]"], tmp_path / "home")
        alone.bake_alone(config, Store(config.home()), alone.Request(world.base.path, tmp_path / "adapter"))
    folds, bakes = keys[::2], keys[1::2]
    for first, second, other in (folds, bakes):
        assert first == second != other
