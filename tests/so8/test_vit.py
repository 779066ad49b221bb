"""SO8ViT: the shapes that llama.cpp computes, the names of its weights, and a tower that somebody else has trained."""

import base64
import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from so8t.collect import tower as collect_tower
from so8t.collect.basemodel import demo
from so8t.collect.config import DemoBase
from so8t.config import Machine, check, load_config
from so8t.errors import ConfigError, InputError
from so8t.models import load_base
from so8t.progress import Progress
from so8t.section import Repository
from so8t.so8.adapter import Adapters
from so8t.so8.linear import Placement, Setting
from so8t.so8.pretrained import GEOMETRY, as_pretrained, load_tower, read_tower
from so8t.so8.vit import LINEARS, TOWER, check_shape, describe, join, load_vision, vision_state
from tests.conftest import ROOT
from tests.hub import HubServer

SHAPE = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64, "image_size": 30, "patch_size": 8}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("base")
    torch.set_num_threads(1)
    config = DemoBase(kind="demo", steps=1, batch=1, length=16, hidden=64, layers=2)
    demo.make(config, root, Progress("base", Machine(threads=1), root))
    return root


def vision(**changes):
    return describe(**{**SHAPE, **changes}, image_token_id=2011)


def test_a_rest_that_fills_no_patch_is_not_seen():
    """30 = 3 x 8 + 6, as 384 = 27 x 14 + 6 in so400m."""
    assert vision().tokens == 9
    assert vision(image_size=384, patch_size=14).tokens == 729


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 5}, "the heads divide"),
        ({"hidden": 36}, "hidden_size.*36"),
        ({"intermediate": 60}, "intermediate_size.*60"),
        ({"image_size": 6}, "at least one patch"),
    ],
)
def test_a_shape_without_rotations_or_heads_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        vision(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "clip_vision_model"}, {"vision_use_head": True}, {"hidden_act": "gelu"}, {"num_channels": 1},
        {"image_size": 32},
    ],
)  # fmt: skip
def test_what_llama_cpp_computes_otherwise_is_refused(changes):
    plain = vision()
    with pytest.raises(InputError, match=next(iter(changes))):
        check_shape(replace(plain, vision_config={**plain.vision_config, **changes}))
    with pytest.raises(InputError, match="projector_hidden_act"):
        check_shape(replace(plain, projector_hidden_act="gelu"))
    with pytest.raises(InputError, match="feature_layer"):
        check_shape(replace(plain, feature_layer=-2))


def test_weights_keep_llavas_names_and_come_back_equal(base, tmp_path):
    """Also through transformers' own file of the joined model, adapters or not."""
    torch.manual_seed(1)
    model = join(load_base(base), vision())
    plain = vision_state(model)
    adapters = Adapters(Setting())
    adapters.attach(
        model.model.vision_tower, TOWER,
        {f"{TOWER}encoder.layers.{i}.{name}": Placement() for i in range(2) for name in LINEARS},
    )  # fmt: skip
    state = vision_state(model)
    assert state.keys() == plain.keys()
    heads = {name.split(".")[0] + "." + name.split(".")[1] for name in state}
    assert heads == {
        "vision_tower.embeddings", "vision_tower.encoder", "vision_tower.post_layernorm",
        "multi_modal_projector.linear_1", "multi_modal_projector.linear_2",
    }  # fmt: skip
    save_file(state, tmp_path / "vision.safetensors")
    torch.manual_seed(2)
    other = join(load_base(base), vision())
    assert any(not torch.equal(one, state[name]) for name, one in vision_state(other).items())
    load_vision(other, load_file(tmp_path / "vision.safetensors"))
    assert all(torch.equal(one, state[name]) for name, one in vision_state(other).items())
    other.save_pretrained(tmp_path / "llava")
    written = load_file(tmp_path / "llava" / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())
    pixels = torch.randn(2, 3, 30, 30)
    features = [m.get_image_features(pixel_values=pixels).pooler_output for m in (model, other)]
    assert torch.equal(torch.cat(list(features[0])), torch.cat(list(features[1])))
    ids = torch.tensor([[5, *[2011] * 9, 6]])
    assert other(input_ids=ids, pixel_values=pixels[:1]).logits.shape[:2] == (1, 11)


def preprocessor(**changes):
    return {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3],
        "resample": 3, "rescale_factor": 1 / 255, "size": {"height": 30, "width": 30}, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """A small random SigLIP as transformers saves it, text half and pooling head included."""
    from transformers import SiglipConfig, SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(7)
    half = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        vision_config={**half, "image_size": 30, "patch_size": 8}, text_config={**half, "vocab_size": 99}
    )
    model = SiglipModel(config).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor()), encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder, model


@pytest.fixture(scope="module")
def fetched(siglip, tmp_path_factory):
    """The same from a Hub, by the step."""
    root = tmp_path_factory.mktemp("fetched")
    with HubServer(root / "hub") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        repo = server.store.create("models", "lab/siglip", private=False)
        lines = [{"key": "header", "value": {"summary": "files"}}]
        for path in sorted(siglip[0].iterdir()):
            data = path.read_bytes()
            if path.suffix == ".safetensors":
                oid = hashlib.sha256(data).hexdigest()
                server.store.put_object(oid, data)
                lines.append({"key": "lfsFile", "value": {"path": path.name, "oid": oid}})
            else:
                lines.append({"key": "file", "value": {"path": path.name, "content": base64.b64encode(data).decode()}})
        revision = server.store.commit(repo, "main", lines)
        (root / "out").mkdir()
        progress = Progress("collect.tower", Machine(), root)
        facts = collect_tower.run(Repository(id="lab/siglip", revision=revision), {}, root / "out", progress)
    return root / "out", facts, revision


def test_a_tower_comes_from_the_hub_without_pickles_and_tokenizer(fetched):
    out, facts, revision = fetched
    assert {path.name for path in out.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json"
    }  # fmt: skip
    assert {name: facts[name] for name in ("revision", "licence", "resampling", *SHAPE)} == {
        "revision": revision, "licence": "apache-2.0", "resampling": "bicubic", **SHAPE,
    }  # fmt: skip


def test_a_pretrained_tower_sees_what_it_saw_at_home(base, siglip, fetched):
    """Pixels as its own processor makes them, features as its own model gives them."""
    from transformers import SiglipImageProcessorPil

    ours = as_pretrained(vision(), fetched[0])
    model = join(load_base(base), ours)
    load_tower(model.model.vision_tower, fetched[0])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8))
    data = io.BytesIO()
    picture.save(data, "PNG")
    pixels = ours.pixel_values([data.getvalue()])
    theirs = SiglipImageProcessorPil(**preprocessor())(images=picture, return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, theirs, atol=1e-5)
    with torch.no_grad():
        found = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        wanted = siglip[1].vision_model(pixels, output_hidden_states=True).hidden_states[-1]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_another_geometry_is_refused_with_the_right_values(fetched):
    with pytest.raises(InputError, match=r"own \{'layers': 2\}"):
        as_pretrained(vision(layers=3), fetched[0])


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("config.json", {"model_type": "clip"}, "class token"),
        ("config.json", {"vision_config": {"hidden_act": "gelu"}}, "gelu_pytorch_tanh"),
        ("preprocessor_config.json", {"size": {"height": 30, "width": 40}}, "squared"),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, "scales pixels"),
        ("preprocessor_config.json", {"resample": 5}, "PIL's 5"),
    ],
)
def test_what_is_no_such_tower_is_refused(fetched, tmp_path, name, changes, said):
    for path in fetched[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = json.loads((tmp_path / name).read_text(encoding="utf-8"))
    (tmp_path / name).write_text(json.dumps({**whole, **changes}), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_tower(tmp_path)


def test_a_config_names_the_tower_and_its_step(fetched):
    from so8t.step import Ref, steps

    plain = {"base": {"kind": "demo"}, "collect": {"sources": [{"kind": "demo", "name": "digits", "set": "digits"}]}}
    named = {"id": "lab/siglip", "revision": fetched[2]}
    with pytest.raises(ConfigError, match="epochs: 0"):
        check({**plain, "train": {"vision": {"pretrained": named}}}, "here")
    config = check({**plain, "train": {"vision": {"pretrained": named, "epochs": 0}}}, "here")
    assert steps()["train"].needs(config, "")["tower"] == Ref("collect.tower", "vision")
    assert steps()["collect.tower"].section(config, "vision").id == "lab/siglip"
    without = check(plain, "here")
    assert steps()["collect.tower"].parts(without) == []
    assert "tower" not in steps()["train"].needs(without, "")


def test_the_real_config_says_what_its_tower_is():
    """SigLIP's defaults in transformers are those of the tower that it names."""
    from transformers import SiglipVisionConfig

    train = load_config(ROOT / "configs" / "borea_phi35.yaml").train
    assert train.vision.pretrained.id == "google/siglip-base-patch16-224"
    usual = SiglipVisionConfig()
    assert {n: getattr(train.vision, n) for n in GEOMETRY} == {n: getattr(usual, name) for n, name in GEOMETRY.items()}
