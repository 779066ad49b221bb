import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from so8t import durable, models
from so8t.bake import fold
from so8t.bake.config import Fold
from so8t.errors import ResourceError
from so8t.so8 import vit
from so8t.so8.adapted import load_system
from so8t.so8.merge import Folded, Tensors, read_train_adapter
from tests.bake.conftest import artifact, picture


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_config_and_tokenizer_are_copied_byte_for_byte(world, folded):
    hf, base, tokenizer = folded.path / "hf", world.base.path, world.train.path / "tokenizer"
    for name in ("config.json", "generation_config.json", "model.safetensors.index.json"):
        assert (hf / name).read_bytes() == (base / name).read_bytes()
    for path in tokenizer.iterdir():
        assert (hf / path.name).read_bytes() == path.read_bytes()


def test_untouched_tensors_are_the_base_s(world, folded):
    touched = read_train_adapter(world.train.path).touches
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        before, after = load_file(world.base.path / name), load_file(folded.path / "hf" / name)
        assert {n for n in before if not torch.equal(before[n], after[n])} == {n for n in before if touched(n)}
        assert all(before[n].dtype == after[n].dtype for n in before)


def test_baked_weights_equal_the_fold_to_bf16(world, folded):
    exact = Folded(Tensors.of_model(world.base.path), read_train_adapter(world.train.path))
    baked = Tensors.of_model(folded.path / "hf")
    for name in ("model.layers.0.self_attn.qkv_proj.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"):
        np.testing.assert_allclose(baked.whole(name), exact.whole(name), rtol=2**-8, atol=1e-30)


def test_unbaked_is_the_base_to_bf16(world, folded):
    adapter, baked = read_train_adapter(world.train.path), Tensors.of_model(folded.path / "hf")
    for name, change in adapter.changes.items():
        base = Tensors.of_model(world.base.path).whole(name)
        np.testing.assert_allclose(change.revert(baked.whole(name)), base, atol=2**-7 * np.abs(base).max())


def test_without_the_stock_folder_the_gguf_is_the_same(world, folded, progress, tmp_path):
    fold.run(Fold(stock=False), {"base": world.base, "train": world.train}, tmp_path, progress)
    assert list((tmp_path / "hf").glob("*.safetensors*")) == []
    name = "gguf/so8t-phi-3-F16.gguf"
    assert (tmp_path / name).read_bytes() == (folded.path / name).read_bytes()
    assert models.load_tokenizer(tmp_path / "hf").chat_template


def test_folded_tower_answers_as_the_live_one(world, folded):
    live = load_system(world.base.path, world.train.path, adapted=True)
    vision = vit.Vision.read(folded.path / "vision" / "config.json")
    baked = vit.join(models.load_base(world.base.path), vision)
    vit.load_vision_file(baked, folded.path / "vision" / "model.safetensors")
    pixels = live.pixel_values([picture(7)])
    with torch.inference_mode():
        wanted, found = (m.get_image_features(pixel_values=pixels).pooler_output[0] for m in (live.model, baked))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_two_runs_give_the_same_bytes_and_a_resumed_one_too(world, folded, progress, tmp_path):
    inputs = {"base": world.base, "train": world.train}
    whole = files_of(folded.path)
    for name in ("hf/model-00002-of-00002.safetensors", "gguf/so8t-phi-3-F16.gguf"):
        shutil.copytree(folded.path, tmp_path / "again", dirs_exist_ok=True)
        (tmp_path / "again" / name).unlink()
        (tmp_path / "again" / f"{name}.tmp").write_bytes(b"torn")
        kept = (tmp_path / "again" / "hf" / "model-00001-of-00002.safetensors").stat().st_mtime_ns
        fold.run(Fold(), inputs, tmp_path / "again", progress)
        assert (tmp_path / "again" / "hf" / "model-00001-of-00002.safetensors").stat().st_mtime_ns == kept
        # The store removes such leftovers before a step starts and before it commits.
        (tmp_path / "again" / f"{name}.tmp").unlink(missing_ok=True)
        assert files_of(tmp_path / "again") == whole


def test_fold_of_nothing_is_the_base(world, progress, tmp_path):
    """Adapters at zero are the identity: every weight file comes out as it went in."""
    train = tmp_path / "train"
    shutil.copytree(world.train.path, train)
    base = {
        **load_file(world.base.path / "model-00001-of-00002.safetensors"),
        **load_file(world.base.path / "model-00002-of-00002.safetensors"),
    }
    state = load_file(train / "adapter" / "adapter.safetensors")
    zero = {name: torch.zeros_like(tensor) for name, tensor in state.items() if not name.startswith("token_rows")}
    ids = sorted(durable.read_json(train / "adapter" / "adapter.json")["token_ids"].values())
    zero["token_rows.embed_tokens"], zero["token_rows.lm_head"] = (
        base["model.embed_tokens.weight"][ids].float(),
        base["lm_head.weight"][ids].float(),
    )
    save_file(zero, train / "adapter" / "adapter.safetensors")
    (tmp_path / "out").mkdir()
    fold.run(Fold(), {"base": world.base, "train": artifact(train, "train")}, tmp_path / "out", progress)
    for path in world.base.path.glob("*.safetensors"):
        assert (tmp_path / "out" / "hf" / path.name).read_bytes() == path.read_bytes()


def test_too_little_room_is_said_before_anything_is_written(world, progress, tmp_path, monkeypatch):
    monkeypatch.setattr(fold, "SPARE_BYTES", 1 << 60)
    with pytest.raises(ResourceError, match="GB are free"):
        fold.run(Fold(), {"base": world.base, "train": world.train}, tmp_path, progress)
    assert list(tmp_path.iterdir()) == []
