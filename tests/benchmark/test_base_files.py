"""The untouched base as files of the types that are delivered: what is in them, what makes them anew, who is compared."""

import gguf
import pytest
import torch
from safetensors.torch import load_file

from so8t.benchmark.config import Contrast
from so8t.benchmark.contrasts import resolve
from so8t.config import load_config
from so8t.errors import ConfigError
from so8t.step import Ref, steps
from so8t.wiring import TRAIN
from tests.conftest import ROOT

DELIVERED = Contrast(name="delivered", of="C-*", against="A-*", test="superiority")
SYSTEMS = ["A", "A-F16", "A-Q8_0", "B", "C-F16", "C-Q4_K_M", "C-Q8_0"]


def config_of(*overrides: str):
    return load_config(ROOT / "configs" / "demo.yaml", overrides)


def made_from(ref: Ref, config) -> set[Ref]:
    """A step and everything before it."""
    needs = steps()[ref.step].needs(config, ref.part).values()
    return {ref}.union(*(made_from(need, config) for need in needs))


def test_the_file_holds_the_base_as_it_is(stock, world):
    (path,) = (stock["text"].path / "gguf").glob("*.gguf")
    wanted = {
        name: tensor for shard in world.base.path.glob("*.safetensors") for name, tensor in load_file(shard).items()
    }
    layers = 1 + max(int(name.split(".")[2]) for name in wanted if ".layers." in name)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.PHI3, layers)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, tensor in wanted.items():
        have = found.pop(names.get_name(name, try_suffixes=(".weight",)))
        dtype = torch.float16 if tensor.dim() == 2 else torch.float32
        assert have.data.tobytes() == tensor.to(dtype).numpy().tobytes(), name
    assert all(name.startswith("rope_factors") for name in found)
    assert set(stock["Q8_0"].manifest.facts["types"].values()) == {"Q8_0", "F32"}


def test_a_training_makes_none_of_the_base_s_text_files_anew():
    config = config_of()
    for ref in (Ref("bake.stock", "text"), Ref("bake.quantize", "A-Q8_0")):
        assert TRAIN not in made_from(ref, config)
    assert made_from(Ref("bake.quantize", "A-Q8_0"), config) < made_from(Ref("benchmark.cell", "A-Q8_0:digits"), config)


def test_the_base_s_files_are_neither_gated_nor_published():
    config = config_of("benchmark.base_types=[F16,Q8_0,Q4_K_M]")
    for name in ("bake", "upload"):
        taken = steps()[name].needs(config, "").values()
        assert not [ref for ref in taken if ref.step == "bake.stock" or ref.part.startswith("A-")]
    assert steps()["bake.quantize"].parts(config) == ["Q8_0", "Q4_K_M", "A-Q8_0", "A-Q4_K_M"]
    cells = {part.partition(":")[0] for part in steps()["benchmark.cell"].parts(config)}
    assert cells == {"A", "A-F16", "A-Q8_0", "A-Q4_K_M", "B", "C-F16", "C-Q8_0", "C-Q4_K_M"}


@pytest.mark.parametrize(
    ("overrides", "types"),
    [
        ([], ["Q8_0"]),
        (["bake.quantizations=[Q4_K_M-imat,Q5_K_M,Q8_0]"], ["Q5_K_M"]),
        (["bake.quantizations=[]"], []),
        (["benchmark.base_types=[]", "benchmark.contrasts=[]"], []),
    ],
)
def test_the_first_type_without_a_guide_is_asked_of_the_base(overrides, types):
    config = config_of(*overrides)
    assert config.base_types() == types
    assert steps()["bake.stock"].parts(config) == (["text", "vision"] if types else [])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["benchmark.base_types=[Q6_K]"], "benchmark.base_types has Q6_K, which bake.quantizations has not"),
        (["benchmark.base_types=[]"], "the contrast 'delivered' is against"),
        (["bake.quantizations=[Q4_K_M-imat]"], "a guided type cannot be"),
    ],
)
def test_a_contrast_without_its_partner_is_refused_before_anything_runs(overrides, said):
    with pytest.raises(ConfigError, match=said):
        config_of(*overrides)


def test_each_file_is_compared_with_the_base_in_a_file_of_its_type():
    assert resolve(DELIVERED, SYSTEMS) == [("C-Q8_0", "A-Q8_0")]
    assert resolve(DELIVERED.model_copy(update={"of": "C-F16"}), SYSTEMS) == [("C-F16", "A-F16")]
    control = Contrast(name="backend", of="A-F16", against="A", test="equivalence")
    assert resolve(control, SYSTEMS) == [("A-F16", "A")]
    with pytest.raises(ConfigError, match="no type has both"):
        resolve(DELIVERED, ["A", "B", "C-F16", "C-Q8_0"])
