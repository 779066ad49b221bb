"""Adapters around a small random Phi-3, joined to a small tower."""

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from so8t.errors import InputError
from so8t.so8.adapter import Adapters, placements_of
from so8t.so8.linear import Placement, Setting
from so8t.so8.vit import TOWER, Vision, describe, join, load_vision, vision_state

VOCABULARY, ADDED = 128, [100, 101, 102]
OTHERS = [i for i in range(VOCABULARY) if i not in ADDED]
LINEARS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")


def make_base() -> Phi3ForCausalLM:
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, original_max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_implementation="eager",
    )  # fmt: skip
    return Phi3ForCausalLM(config).eval()


def make_vision() -> Vision:
    return describe(hidden=32, layers=2, heads=2, intermediate=64, image_size=32, patch_size=16, image_token_id=102)


def adapt(model, placement: Placement, apply_to="activations") -> Adapters:
    adapters = Adapters(Setting(lora_scale=2.0, apply_to=apply_to))
    names = {f"model.layers.{i}.{name}": placement for i in range(2) for name in LINEARS}
    adapters.attach(model.model.language_model, "model.", names)
    adapters.attach_rows(model.model.language_model, model, ADDED)
    adapters.init_low_rank(torch.Generator().manual_seed(0))
    return adapters


def disturb(adapters: Adapters, std: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in adapters.parameters().values():
        parameter.data.add_(std * torch.randn(parameter.shape, generator=generator))


FULL = Placement(output=True, input=True, rank=4)


@pytest.fixture
def ids():
    return torch.randint(3, VOCABULARY, (3, 10), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("apply_to", ["activations", "weights"])
def test_untrained_adapters_give_the_base_logits_exactly(ids, apply_to):
    base = make_base()
    expected = base(ids).logits
    model = join(base, make_vision())
    adapt(model, FULL, apply_to)
    logits = model(ids).logits
    assert torch.equal(logits[..., OTHERS], expected[..., OTHERS])
    # The added rows are a product of another shape, which may round differently.
    assert torch.allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize("apply_to", ["activations", "weights"])
def test_switched_off_they_are_the_base_exactly(ids, apply_to):
    base = make_base()
    expected = base(ids).logits
    model = join(base, make_vision())
    adapters = adapt(model, FULL, apply_to)
    disturb(adapters)
    assert not torch.allclose(model(ids).logits, expected, atol=0.05)
    with adapters.off():
        assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("placement", [Placement(), Placement(False, True), Placement(False, False, 4), FULL])
def test_both_ways_of_computing_agree(ids, placement):
    model = join(make_base(), make_vision())
    adapters = adapt(model, placement)
    disturb(adapters)
    by_activation = model(ids).logits
    adapters.setting.apply_to = "weights"
    by_weight = model(ids).logits
    with adapters.cached():
        cached = model(ids).logits
    assert (by_activation - by_weight).abs().max() < 1e-5 * by_weight.abs().max()
    assert torch.equal(by_weight, cached)


def test_the_bias_is_not_rotated():
    model = join(make_base(), make_vision())
    adapters = Adapters(Setting())
    adapters.attach(model.model.vision_tower, TOWER, {f"{TOWER}encoder.layers.0.mlp.fc1": Placement()})
    linear = adapters.linears[f"{TOWER}encoder.layers.0.mlp.fc1"]
    linear.bias.data.normal_()
    disturb(adapters)
    assert torch.equal(linear(torch.zeros(1, 32))[0], linear.bias)


def test_state_survives_a_round_trip(ids):
    model, twin = join(make_base(), make_vision()), join(make_base(), make_vision())
    adapters = adapt(model, FULL)
    disturb(adapters)
    state = adapters.state()
    copy = Adapters(Setting(lora_scale=2.0))
    copy.attach(twin.model.language_model, "model.", placements_of(state))
    copy.attach_rows(twin.model.language_model, twin, ADDED)
    copy.load(state)
    assert torch.equal(model(ids).logits, twin(ids).logits)


def test_a_state_of_another_model_is_refused():
    adapters = adapt(join(make_base(), make_vision()), FULL)
    state = adapters.state()
    with pytest.raises(InputError, match="adapter tensors differ"):
        adapters.load({name: tensor for name, tensor in state.items() if "layers.0" not in name})
    name = "model.layers.0.mlp.down_proj.so8_out"
    with pytest.raises(InputError, match="has the shape"):
        adapters.load({**state, name: state[name][:1]})


def test_unknown_modules_are_refused():
    model = join(make_base(), make_vision())
    with pytest.raises(InputError, match="no module"):
        Adapters(Setting()).attach(model.model.language_model, "model.", {"model.layers.9.mlp.down_proj": FULL})
    with pytest.raises(InputError, match="Phi3MLP"):
        Adapters(Setting()).attach(model.model.language_model, "model.", {"model.layers.0.mlp": FULL})


def test_holding_another_state_ends_with_ones_own(ids):
    model = join(make_base(), make_vision())
    adapters = adapt(model, FULL)
    reference = {name: p.detach().clone() for name, p in adapters.parameters().items()}
    at_reference = model(ids).logits
    disturb(adapters)
    mine = model(ids).logits
    with adapters.holding(reference):
        assert torch.equal(model(ids).logits, at_reference)
    assert torch.equal(model(ids).logits, mine)
    with pytest.raises(RuntimeError, match="cut"), adapters.holding(reference):
        raise RuntimeError("cut")
    assert torch.equal(model(ids).logits, mine)


def test_token_rows_touch_only_their_tokens(ids):
    base = make_base()
    plain = torch.randint(3, 90, (2, 6), generator=torch.Generator().manual_seed(1))
    expected = base(plain).logits
    model = join(base, make_vision())
    adapters = Adapters(Setting())
    adapters.attach_rows(model.model.language_model, model, ADDED)
    disturb(adapters)
    logits = model(plain).logits
    assert torch.equal(logits[..., OTHERS], expected[..., OTHERS])
    assert not torch.allclose(logits[..., ADDED], expected[..., ADDED], atol=1e-3)


def test_images_go_through_generation_as_through_the_forward():
    model = join(make_base(), make_vision())
    vision = make_vision()
    ids = torch.tensor([[5, 6, *[102] * vision.tokens, 7, 8]])
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first = model(input_ids=ids, pixel_values=pixels).logits[0, -1].argmax()
    made = model.generate(
        input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False
    )
    assert made[0, ids.shape[1]] == first
    other = model(input_ids=ids, pixel_values=-pixels).logits[0, -1]
    assert not torch.allclose(other, model(input_ids=ids, pixel_values=pixels).logits[0, -1])


def test_vision_state_is_named_like_llava_and_leaves_adapters_out():
    model = join(make_base(), make_vision())
    before = vision_state(model)
    adapters = Adapters(Setting())
    adapters.attach(model.model.vision_tower, TOWER, {f"{TOWER}encoder.layers.1.self_attn.q_proj": Placement()})
    assert set(vision_state(model)) == set(before)
    assert {"vision_tower.embeddings.patch_embedding.weight", "multi_modal_projector.linear_2.bias"} <= set(before)
    load_vision(model, {name: tensor + 1 for name, tensor in before.items()})
    assert all(torch.equal(tensor, before[name] + 1) for name, tensor in vision_state(model).items())
    with pytest.raises(InputError, match="absent or unknown"):
        load_vision(model, {name: tensor for name, tensor in before.items() if "layers.1" not in name})
