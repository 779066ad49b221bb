"""Adapters folded into the base's own weights, and out again."""

import pytest
import torch

from so8t.errors import InputError
from so8t.so8 import merge
from so8t.so8.rotation import MAPS, rotations_of
from so8t.so8.vit import join
from tests.so8.test_adapter import FULL, adapt, disturb, ids, make_base, make_vision  # noqa: F401


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if name.endswith(".weight")}


@pytest.mark.parametrize("rotation_map", MAPS)
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_merged_equals_live_and_unmerged_is_the_base(ids, rotation_map, alpha):  # noqa: F811
    model = join(make_base(), make_vision())
    adapters = adapt(model, FULL)
    disturb(adapters)
    adapters.setting.rotation_map, adapters.setting.alpha = rotation_map, alpha
    plain, live = weights(model), model(ids).logits
    with adapters.off():
        base = model(ids).logits
    adapters.merge()
    assert (model(ids).logits - live).abs().max() <= 1e-5 * live.abs().max()
    assert (base - live).abs().max() > 0.05
    with pytest.raises(AssertionError), adapters.off():
        pass
    adapters.unmerge()
    assert torch.equal(model(ids).logits, live)
    after = weights(model)
    assert all(torch.equal(after[name], tensor) for name, tensor in plain.items())


def test_rotations_alone_keep_the_singular_values():
    model = join(make_base(), make_vision())
    adapters = adapt(model, type(FULL)(output=True, input=True, rank=0))
    disturb(adapters)
    linear = adapters.linears["model.layers.0.mlp.gate_up_proj"]
    before = linear.weight.detach().clone()
    adapters.merge()
    assert not torch.allclose(linear.weight, before, atol=1e-3)
    values = (torch.linalg.svdvals(w.detach().double()) for w in (linear.weight, before))
    assert torch.allclose(*values, rtol=1e-5)


def test_bf16_weights_come_back_bit_by_bit(ids):  # noqa: F811
    model = join(make_base().bfloat16(), make_vision())
    adapters = adapt(model, FULL)
    disturb(adapters)
    plain = weights(model)
    adapters.merge()
    assert adapters.linears["model.layers.0.mlp.down_proj"].weight.dtype == torch.bfloat16
    adapters.unmerge()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in weights(model).items())


def test_what_is_not_finite_is_refused_and_nothing_changes(ids):  # noqa: F811
    model = join(make_base(), make_vision())
    adapters = adapt(model, FULL)
    disturb(adapters)
    adapters.linears["model.layers.1.mlp.down_proj"].lora_b.data[0, 0] = float("inf")
    plain = weights(model)
    with pytest.raises(InputError, match="not finite"):
        adapters.merge()
    assert not adapters.setting.merged
    assert all(torch.equal(tensor, plain[name]) for name, tensor in weights(model).items())


@pytest.mark.parametrize("rotation_map", MAPS)
def test_the_fold_on_disk_builds_the_same_rotations(rotation_map):
    entries = torch.randn(20, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    live = rotations_of(entries, 0.6, rotation_map).numpy()
    assert abs(merge.rotations(entries.numpy(), 0.6, rotation_map) - live).max() < 1e-12
