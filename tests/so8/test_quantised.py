"""Adapters around a 4-bit base, on the CPU."""

import importlib.util

import pytest
import torch

from so8t import models
from so8t.collect.basemodel import demo
from so8t.collect.config import DemoBase
from so8t.config import Machine
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.so8.adapter import Adapters
from so8t.so8.config import Adapter
from so8t.so8.linear import Placement, Setting
from so8t.so8.placing import text_adapters

SHAPE = {"targets": ["self_attn.o_proj", "mlp.down_proj"], "input": True, "rank": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("base")
    size = {"steps": 1, "batch": 1, "length": 8, "hidden": 64, "layers": 2}
    demo.make(DemoBase(kind="demo", **size), out, Progress("collect.base", Machine(), out))
    return out


@pytest.fixture(scope="module")
def base(folder):
    return models.load_base(folder, "nf4")


def adapted(folder):
    model = models.load_base(folder, "nf4").requires_grad_(False)
    return model, text_adapters(Adapter.model_validate({**SHAPE, "base_dtype": "nf4"}), model.model, "train.adapter")


def test_linears_are_4_bit_and_the_rest_is_not(base):
    linears = {name: m for name, m in base.named_modules() if name.endswith("_proj")}
    assert len(linears) == 8
    assert {type(m).__name__ for m in linears.values()} == {"Linear4bit"}
    assert {m.weight.quant_state.quant_type for m in linears.values()} == {"nf4"}
    assert all(m.weight.quant_state.nested for m in linears.values())
    assert base.lm_head.weight.dtype == base.model.embed_tokens.weight.dtype == torch.bfloat16


def test_it_needs_less_than_a_third_of_bf16_there(base):
    linears = [m for name, m in base.named_modules() if name.endswith("_proj")]
    held = sum(m.weight.numel() * m.weight.element_size() for m in linears)
    assert held < 2 / 3.5 * sum(m.in_features * m.out_features for m in linears)


def test_untrained_adapters_change_nothing_and_trained_ones_learn(folder):
    model, adapters = adapted(folder)
    ids = torch.randint(3, 1900, (2, 12), generator=torch.Generator().manual_seed(0))
    with adapters.off():
        expected = model(ids).logits
    assert torch.equal(model(ids).logits, expected)
    adapters.init_low_rank(torch.Generator().manual_seed(0))
    for parameter in adapters.parameters().values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(adapters.parameters().values(), lr=2e-2)
    losses = []
    for _ in range(6):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in adapters.parameters().values())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05
    with adapters.off():
        assert torch.equal(model(ids).logits, expected)


def test_gradients_are_those_of_the_dequantised_weights(folder):
    """Also after a pass without gradients, in which bitsandbytes may repack the weights of a model in evaluation mode."""
    import bitsandbytes

    quantised, plain = models.load_base(folder, "nf4"), models.load_base(folder, "bfloat16")
    with torch.no_grad():
        for name, module in quantised.named_modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                weight = bitsandbytes.functional.dequantize_4bit(module.weight, module.weight.quant_state)
                plain.get_submodule(name).weight.copy_(weight)
    ids = torch.randint(3, 1900, (2, 12), generator=torch.Generator().manual_seed(0))
    found = []
    for model in (quantised, plain):
        model.requires_grad_(False)
        adapters = text_adapters(Adapter.model_validate(SHAPE), model.model, "train.adapter")
        adapters.init_low_rank(torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(1)
        for parameter in adapters.parameters().values():
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            parameter.requires_grad_(True)
        with torch.no_grad():
            model(ids)
        model(ids, labels=ids).loss.backward()
        found.append({name: p.grad for name, p in adapters.parameters().items()})
    for name, gradient in found[1].items():
        assert torch.nn.functional.cosine_similarity(found[0][name].flatten(), gradient.flatten(), dim=0) > 0.99, name
        assert (found[0][name] - gradient).norm() < 0.1 * gradient.norm(), name


def test_merging_is_refused_with_its_reason(folder):
    model, adapters = adapted(folder)
    ids = torch.tensor([[5, 6, 7]])
    before = model(ids).logits
    with pytest.raises(InputError, match="4 bits"):
        adapters.merge()
    assert not adapters.setting.merged
    assert torch.equal(model(ids).logits, before)


def test_a_weight_that_is_packed_is_not_rotated(base):
    with pytest.raises(InputError, match="apply_to"):
        Adapters(Setting(apply_to="weights")).attach(
            base.model, "model.", {"model.layers.0.mlp.down_proj": Placement()}
        )
    with pytest.raises(ValueError, match="apply_to"):
        Adapter.model_validate({"base_dtype": "nf4", "apply_to": "weights"})


def test_what_is_missing_is_named_with_the_command(folder, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else found(name, *a)
    )
    with pytest.raises(InputError, match=r"bitsandbytes[\s\S]*pip install.*\[nf4\]"):
        models.load_base(folder, "nf4")
