"""Which linears of which layers get what."""

import pytest

from so8t.errors import InputError
from so8t.so8.config import Adapter
from so8t.so8.placing import text_adapters
from tests.so8.test_adapter import make_base


def names(**shape):
    return text_adapters(Adapter.model_validate(shape), make_base().model, "train.adapter").parameters()


def test_layers_are_chosen_by_ranges():
    assert Adapter(layers="0-2, 5").layers == (0, 1, 2, 5)
    assert Adapter(layers=[3, 1]).layers == (3, 1)
    assert set(names(layers="1", targets=["mlp.down_proj"])) == {"model.layers.1.mlp.down_proj.so8_out"}
    assert len(names(targets=["mlp.down_proj"])) == 2


@pytest.mark.parametrize("layers", ["", "a-b", "5-3", [-1], []])
def test_odd_layers_are_refused(layers):
    with pytest.raises(ValueError, match="layers"):
        Adapter(layers=layers)


def test_a_layer_that_the_base_lacks_is_named():
    with pytest.raises(InputError, match=r"layer 2[\s\S]*layers 0 to 1"):
        names(layers="0-2")


def test_each_linear_can_have_a_placement_of_its_own():
    found = names(
        layers=[0],
        targets=["self_attn.o_proj", "mlp.down_proj"],
        placements=[{"target": "mlp.down_proj", "output": False, "rank": 3}],
    )
    assert {name: list(p.shape) for name, p in found.items()} == {
        "model.layers.0.mlp.down_proj.lora_a": [3, 64],
        "model.layers.0.mlp.down_proj.lora_b": [32, 3],
        "model.layers.0.self_attn.o_proj.so8_out": [4, 28],
    }
    with pytest.raises(ValueError, match="which targets does not"):
        Adapter(targets=["self_attn.o_proj"], placements=[{"target": "mlp.down_proj"}])
    with pytest.raises(ValueError, match="twice"):
        Adapter(targets=["mlp.down_proj"], placements=[{"target": "mlp.down_proj"}] * 2)
    with pytest.raises(InputError, match="places nothing"):
        names(output=False)
