"""Adapters under torch.compile: one graph, the same numbers, no compilation for every alpha."""

import pytest
import torch
from torch import nn

from so8t.so8.adapter import Adapters
from so8t.so8.linear import Placement, Setting
from so8t.so8.vit import join
from tests.so8.test_adapter import FULL, adapt, disturb, make_base, make_vision


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def adapted_linear(placement, apply_to):
    torch.manual_seed(0)
    root = nn.ModuleDict({"linear": nn.Linear(32, 64)})
    adapters = Adapters(Setting(lora_scale=2.0, apply_to=apply_to))
    adapters.attach(root, "", {"linear": placement})
    adapters.init_low_rank(torch.Generator().manual_seed(0))
    disturb(adapters)
    return adapters, root["linear"]


@pytest.mark.parametrize("apply_to", ["activations", "weights"])
@pytest.mark.parametrize("placement", [Placement(), FULL])
def test_a_linear_is_one_graph_with_its_gradients(placement, apply_to):
    adapters, linear = adapted_linear(placement, apply_to)
    # aot_eager traces forward and backward and needs no C++ compiler.
    compiled = torch.compile(linear, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 5, 32, requires_grad=True)
    found = []
    for run in (linear, compiled):
        y = run(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *adapters.parameters().values()])])
    for eager, traced in zip(*found, strict=True):
        assert torch.allclose(eager, traced, atol=1e-4, rtol=1e-4)


def test_alpha_may_move_without_a_graph_for_each():
    adapters, linear = adapted_linear(Placement(), "activations")
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(linear, backend=counter, fullgraph=True)
    x = torch.randn(4, 32)
    for alpha in (0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 1.0):
        adapters.setting.alpha = alpha
        assert torch.allclose(compiled(x), linear(x), atol=1e-5)
    assert counter.frame_count <= 3


@pytest.mark.soak
def test_a_whole_adapted_model_gives_the_same_logits():
    model = join(make_base(), make_vision())
    adapters = adapt(model, FULL)
    disturb(adapters)
    ids = torch.randint(3, 99, (2, 8), generator=torch.Generator().manual_seed(0))
    text = model.model.language_model
    expected = text(input_ids=ids, use_cache=False).last_hidden_state
    compiled = torch.compile(text, backend="eager")
    found = compiled(input_ids=ids, use_cache=False).last_hidden_state
    assert torch.allclose(found, expected, atol=1e-5)
