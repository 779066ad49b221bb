"""The plan against the real thing: the same counts and sizes as a model that was built, and clear words."""

import base64
import json
from dataclasses import replace

import pytest
import torch

from so8t import durable
from so8t.config import load_config
from so8t.errors import ConfigError
from so8t.models import write_thinking_tokenizer
from so8t.plan.disk import checkpoint_bytes
from so8t.plan.duration import bake_durations, durations
from so8t.plan.geometry import PHI35_MINI, of_json, tower_of
from so8t.plan.hardware import Machine, speed_of
from so8t.plan.memory import GIB, Shapes, phases, update_need, warmup_need
from so8t.plan.report import assumed_tokens, misfits
from so8t.search.config import Search
from so8t.so8.config import Place
from so8t.so8.vit import vision_modules
from so8t.train.config import Train
from so8t.train.learner import build
from tests.conftest import ROOT, command
from tests.train import tiny

BOREA = ROOT / "configs" / "borea_phi35.yaml"
PLACEMENTS = [
    tiny.CONFIG,
    tiny.CONFIG.model_copy(
        update={
            "adapter": tiny.CONFIG.adapter.model_copy(update={"input": False, "rank": 0, "apply_to": "activations"})
        }
    ),
    tiny.CONFIG.model_copy(
        update={
            "adapter": tiny.CONFIG.adapter.model_copy(
                update={"layers": (1,), "placements": (Place(target=tiny.CONFIG.adapter.targets[0], rank=1),)}
            )
        }
    ),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("plan")
    torch.set_num_threads(1)
    tiny.make_world(root)
    return root


def shapes_of(config: Train, world) -> Shapes:
    geometry = of_json(durable.read_json(world / "base" / "config.json"), "here")
    return Shapes.of(config, geometry, tower_of(config.vision, geometry), on_gpu=False, prompt_tokens=20)


@pytest.mark.parametrize("config", PLACEMENTS, ids=["both sides and rank", "output side", "one layer"])
def test_every_count_is_that_of_the_built_model(world, tmp_path, config):
    counts = shapes_of(config, world).counts
    learner = build(config, world / "base", tmp_path, write_thinking_tokenizer(world / "base", tmp_path), "cpu")

    def numbers(parameters) -> int:
        return sum(parameter.numel() for parameter in parameters)

    text = learner.text.parameters()
    rows = [parameter for name, parameter in text.items() if name.startswith("token_rows.")]
    sight = numbers(learner.sight.parameters().values())
    tower, projector = (numbers(module.parameters()) for module in vision_modules(learner.model).values())
    assert counts.token_rows == numbers(rows)
    assert counts.adapters == numbers(text.values()) - numbers(rows)
    assert counts.tower_adapters == sight
    assert (counts.tower, counts.projector) == (tower - sight, projector)
    assert counts.own == numbers(tensor for name, tensor in learner.tensors().items() if name != "alpha")
    shared = {learner.model.get_input_embeddings().weight, learner.model.lm_head.weight}
    linears = {linear.weight for linear in learner.text.linears.values()}
    frozen = {p for p in learner.model.parameters() if not p.requires_grad} | shared | linears
    mine = {id(p) for p in [*text.values(), *learner.sight.parameters().values()]}
    mine |= {id(p) for module in vision_modules(learner.model).values() for p in module.parameters()}
    assert counts.base == numbers(p for p in frozen if id(p) not in mine)


def test_the_largest_checkpoint_is_as_large_as_planned(world, tmp_path):
    """All checkpoints are kept, those of the largest phase too."""
    none = {name: getattr(tiny.CONFIG, name).model_copy(update={"steps": 0}) for name in ("align", "warmup", "head")}
    ppo, vision = tiny.CONFIG.ppo.model_copy(update={"updates": 0}), tiny.CONFIG.vision.model_copy(update={"epochs": 3})
    alpha = tiny.CONFIG.alpha.model_copy(update={"trials": 0})
    config = tiny.CONFIG.model_copy(update={**none, "ppo": ppo, "vision": vision, "alpha": alpha})
    tiny.train(world, tmp_path, interval_s=1e-6, config=config, checkpoint_keep=20)
    written = max(path.stat().st_size for path in tmp_path.rglob("checkpoints/*/tensors.safetensors"))
    planned = checkpoint_bytes(shapes_of(config, world))
    assert planned == pytest.approx(written, rel=0.1)


def test_phi35_has_its_published_size_and_adapters():
    geometry = of_json(PHI35_MINI, "published")
    assert geometry.parameters == 3_821_079_552
    config = Train()
    counts = Shapes.of(config, geometry, tower_of(config.vision, geometry), True, 256).counts
    # Output side of o_proj and down_proj in 32 layers: 2 * 384 blocks * 28 * 32.
    assert counts.adapters == 688_128


def test_what_costs_memory_costs_memory():
    base = Train.model_validate({"vision": {"image_size": 224, "patch_size": 16}})
    geometry = of_json(PHI35_MINI, "published")

    def shapes(**adapter) -> Shapes:
        config = base.model_copy(update={"adapter": base.adapter.model_copy(update=adapter)})
        return Shapes.of(config, geometry, tower_of(config.vision, geometry), True, 256)

    lean, whole = shapes(), shapes(gradient_checkpointing=False)
    assert whole.item_bytes == lean.item_bytes == 2
    assert update_need(whole, 8).device["activations"] > 4 * update_need(lean, 8).device["activations"]
    assert update_need(lean, 4).device_bytes < update_need(lean, 8).device_bytes
    assert warmup_need(lean, 1).device_bytes < warmup_need(lean, 2).device_bytes
    full = shapes(base_dtype="float32")
    assert update_need(full, 1).device["base"] == 2 * update_need(lean, 1).device["base"]


def test_a_search_takes_the_time_of_its_trials_and_the_warm_up_is_done_once(world):
    shapes, speed = shapes_of(tiny.CONFIG, world), speed_of(Machine("", 0, 1, 1, 1), "")
    off, on = (durations(shapes, speed, Search(trials=n, updates=10, report_every=1)) for n in (0, 3))
    assert on["train.search: warm-up"] == off["train: warm-up"]
    assert "train: warm-up" not in on
    assert "train.search: trials" not in off
    trial = on["train.search: trials"][0] / 3
    assert trial == pytest.approx(on["train: ppo"][0] / tiny.CONFIG.ppo.updates * 10)


def test_a_large_vocabulary_costs_time_where_replies_are_read_only(world):
    shapes, speed = shapes_of(tiny.CONFIG, world), speed_of(Machine("", 0, 1, 1, 1), "")
    wide = replace(shapes, geometry=replace(shapes.geometry, vocabulary=10 * shapes.geometry.vocabulary))
    few, many = (durations(one, speed, Search()) for one in (shapes, wide))
    assert many["train: align"] == few["train: align"]
    assert all(many[f"train: {name}"][0] > few[f"train: {name}"][0] for name in ("warm-up", "ppo", "alpha"))


def test_files_of_the_base_and_a_guide_take_their_time(world):
    shapes, speed = shapes_of(tiny.CONFIG, world), speed_of(Machine("", 0, 1, 1, 1), "")

    def spans(*overrides):
        return bake_durations(shapes, speed, load_config(ROOT / "configs" / "demo.yaml", overrides))

    plain = spans("bake.quantizations=[Q8_0]")
    assert plain["bake.stock[text]"] == plain["bake.fold"]
    assert plain["bake.stock[vision]"] < plain["bake.stock[text]"]
    assert "bake.imatrix" not in plain
    assert "bake.stock[text]" not in spans(
        "bake.quantizations=[Q8_0]", "benchmark.base_types=[]", "benchmark.contrasts=[]"
    )
    guided = ("bake.quantizations=[Q4_K_M-imat, Q8_0]", "benchmark.base_types=[Q8_0]")
    few, many = (spans(*guided, f"bake.imatrix.chats={n}")["bake.imatrix"] for n in (8, 16))
    assert many[1] == pytest.approx(2 * few[1])
    assert few[0] < few[1]


def test_a_micro_batch_above_the_batch_counts_as_the_batch(world):
    def need(micro_batch: int) -> int:
        config = tiny.CONFIG.model_copy(
            update={"warmup": tiny.CONFIG.warmup.model_copy(update={"micro_batch": micro_batch})}
        )
        return phases(shapes_of(config, world))["warmup"].device_bytes

    batch = max(tiny.CONFIG.warmup.batch_text, tiny.CONFIG.warmup.batch_image)
    assert need(100 * batch) == need(batch)


def test_the_demo_s_prompts_are_shorter():
    assert assumed_tokens(load_config(ROOT / "configs" / "demo.yaml")) < assumed_tokens(load_config(BOREA))


def test_every_profile_of_the_real_config_fits_its_card():
    for profile, card in (("12gb", "RTX 3060"), ("24gb", "RTX 3090"), ("80gb", "A100")):
        config = load_config(BOREA, [f"profile={profile}"])
        geometry = of_json(PHI35_MINI, "published")
        tower = tower_of(config.train.vision, geometry)
        needs = phases(Shapes.of(config.train, geometry, tower, True, 256 + tower.tokens))
        machine = Machine(card, speed_of(Machine("", 0, 0, 0, 1), card).memory_gib * GIB, 64 * GIB, 1 << 40, 8)
        assert misfits(needs, 0, machine, True) == [], profile
        small = replace(machine, gpu_bytes=4 * GIB, memory_bytes=GIB)
        assert len(misfits(needs, 1 << 41, small, True)) > len(needs)


def test_the_profile_stands_below_the_users_own_settings(tmp_path):
    path = tmp_path / "profiled.yaml"
    durable.write_text(
        path,
        "base: {kind: demo}\ncollect: {sources: [{kind: demo, name: digits, set: digits}]}\ntrain: {seed: 1, ppo: {batch: 2}}\n"
        "profile: small\nprofiles:\n  small: {train: {seed: 2, ppo: {minibatch: 1}}}\n  12: {train: {seed: 12}}\n",
    )
    train = load_config(path).train
    assert (train.seed, train.ppo.batch, train.ppo.minibatch) == (2, 2, 1)
    assert load_config(path, ["profile=12"]).train.seed == 12
    assert load_config(path, ["train.seed=5", "profile=12"]).train.seed == 5
    with pytest.raises(ConfigError, match="one of small, 12"):
        load_config(path, ["profile=large"])
    with pytest.raises(ConfigError, match="a file that has profiles"):
        load_config(ROOT / "configs" / "demo.yaml", ["profile=large"])


def test_the_command_tells_all_in_json_and_loads_no_torch(tmp_path):
    ended = command("plan", "--config", str(BOREA), "--card", "RTX 4090", "--json", home=tmp_path / "home")
    assert ended.code == 0, ended.err
    told = ended.json
    assert told["parameters"]["base"] == 3_821_079_552
    assert set(told["memory"]) == {"align", "warmup", "ppo rollout", "ppo update"}
    for need in told["memory"].values():
        assert need["device_bytes"] == sum(need["device"].values())
    assert told["disk"]["peak"] == sum(size for name, size in told["disk"].items() if name != "peak")
    sizes = told["disk"]
    assert sizes["bake.quantize[A-Q8_0]"] == sizes["bake.quantize[Q8_0]"] > 0
    published = ("bake.fold", *(f"bake.quantize[{name}]" for name in ("Q8_0", "Q5_K_M", "Q4_K_M")))
    assert sizes["upload"] == sum(sizes[name] for name in published), "the base's files stay here"
    assert all(0 < low < high for low, high in told["seconds"].values())
    unpinned = BOREA.read_text(encoding="utf-8").count("revision: unpinned")
    assert unpinned > 1
    assert len([warning for warning in told["warnings"] if "not pinned" in warning]) == unpinned
    assert not (tmp_path / "home").exists()


def test_an_unpinned_base_is_not_fetched_and_the_hub_tells_the_pin(tmp_path):
    from tests.hub import HubServer

    refused = command("step", "collect.base", "--config", str(BOREA), home=tmp_path / "home")
    assert refused.code == 2
    assert "not pinned" in refused.err
    assert "so8t plan --pin" in refused.err
    published = {**PHI35_MINI, "num_hidden_layers": 5}
    with HubServer(tmp_path / "hub") as hub:
        unknown = hub.store.create("models", "lab/phi", private=False)
        content = base64.b64encode(json.dumps(published).encode()).decode()
        header = {"key": "header", "value": {"summary": "files"}}
        hub.store.commit(
            unknown, "main", [header, {"key": "file", "value": {"path": "config.json", "content": content}}]
        )
        planned = command(
            "plan", "--json", "--config", str(BOREA), "--set", "base.id=lab/phi", home=tmp_path / "home",
            environment={"HF_ENDPOINT": hub.url},
        )  # fmt: skip
        repo = hub.store.create("models", "AXCXEPT/Borea-Phi-3.5-mini-Instruct-Jp", private=False)
        lines = [{"key": "file", "value": {"path": "config.json", "content": base64.b64encode(b"{}").decode()}}]
        revision = hub.store.commit(repo, "main", [header, *lines])
        tower = hub.store.commit(
            hub.store.create("models", "google/siglip-base-patch16-224", private=False), "main", [header, *lines]
        )
        magpie = hub.store.create("datasets", "llm-jp/magpie-sft-v1.0", private=False).branches["main"]
        pinned = command(
            "plan", "--pin", "--config", str(BOREA), home=tmp_path / "home", environment={"HF_ENDPOINT": hub.url}
        )
    assert planned.json["geometry"]["layers"] == 5, planned.err
    wanted = [f"base.revision={revision}", f"train.vision.pretrained.revision={tower}"]
    sources = [f"collect.sources.3.revision={magpie}", *(f"# collect.sources.{n} (" for n in (4, 5, 6))]
    sources += [f"# benchmark.data.{task} (" for task in load_config(BOREA).benchmark.data]
    printed = pinned.out.splitlines()
    assert printed[:3] == [*wanted, sources[0]], pinned.err
    assert all(line.startswith(found) for line, found in zip(printed[3:], sources[1:], strict=True))
