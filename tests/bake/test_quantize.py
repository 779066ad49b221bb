import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from so8t import durable
from so8t.artifacts import hash_file
from so8t.bake import checks, quantize
from so8t.bake.config import Quantize
from so8t.bake.gguf_model import write_model
from so8t.errors import InputError, ResourceError, StepFailed
from so8t.so8.merge import Adapter, Folded, Tensors


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [("Q8_0", {"Q8_0", "F32"}), ("Q4_K_M", {"Q4_K", "Q6_K", "F32"}), ("Q5_K_M", {"Q5_K", "Q6_K", "F32"})],
)
def test_types_are_read_back(folded, progress, tmp_path, kind, kinds):
    facts = quantize.run(Quantize(type=kind), {"fold": folded}, tmp_path, progress)
    path = tmp_path / f"so8t-phi-3-{kind}.gguf"
    assert set(facts["tensor_types"]) == kinds
    assert facts["fallbacks"] == []
    assert facts["size_bytes"] == path.stat().st_size < (folded.path / "gguf" / "so8t-phi-3-F16.gguf").stat().st_size
    assert 4 < facts["bits_per_weight"] < 10


def test_bytes_do_not_depend_on_threads_and_a_finished_file_is_kept(folded, progress, tmp_path):
    source = quantize.model_gguf(folded.path / "gguf")
    for threads in (1, 2):
        quantize.quantize(source, tmp_path / f"{threads}.gguf", "Q4_K_M", threads)
    assert hash_file(tmp_path / "1.gguf") == hash_file(tmp_path / "2.gguf")
    quantize.run(Quantize(type="Q4_K_M"), {"fold": folded}, tmp_path, progress)
    path = tmp_path / "so8t-phi-3-Q4_K_M.gguf"
    assert hash_file(path) == hash_file(tmp_path / "1.gguf")
    before = path.stat().st_mtime_ns
    quantize.run(Quantize(type="Q4_K_M"), {"fold": folded}, tmp_path, progress)
    assert path.stat().st_mtime_ns == before


def test_what_llama_cpp_has_written_is_told_as_it_grows(folded, progress, tmp_path, monkeypatch):
    """Whoever looks for processes that hang sees that it works; a file that stands still would say nothing."""
    monkeypatch.setattr(quantize, "LOOK_S", 0.002)
    told = []
    target = tmp_path / "x.gguf"
    quantize.quantize(quantize.model_gguf(folded.path / "gguf"), target, "Q4_K_M", 1, None, told.append)
    assert len(told) > 1
    assert told == sorted(set(told))
    assert told[-1] <= target.stat().st_size


def test_k_quant_of_narrow_columns_is_reported_as_a_fallback(world, tmp_path):
    from transformers import Phi3Config, Phi3ForCausalLM

    config = {
        **durable.read_json(world.base.path / "config.json"),
        "hidden_size": 64,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "intermediate_size": 96,
    }
    durable.write_json(tmp_path / "config.json", config)
    torch.manual_seed(0)
    model = Phi3ForCausalLM(Phi3Config(**{k: v for k, v in config.items() if k not in ("architectures", "model_type")}))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    folded = Folded(Tensors.of_model(tmp_path), Adapter({}))
    write_model(
        tmp_path / "n-F16.gguf",
        tmp_path,
        folded,
        world.train.path / "tokenizer",
        "n-phi3",
        "F16",
        {},
        lambda done, total: None,
    )
    quantize.quantize(tmp_path / "n-F16.gguf", tmp_path / "n-Q4_K_M.gguf", "Q4_K_M", 1)
    found = quantize.fallbacks(quantize.tensor_types(tmp_path / "n-Q4_K_M.gguf"), "Q4_K_M")
    assert {entry["type"] for entry in found} == {"Q5_0", "Q8_0"}
    assert {entry["columns"] for entry in found} == {64, 96}
    assert {"blk.0.ffn_down.weight", "output.weight"} <= {entry["tensor"] for entry in found}
    quantize.quantize(tmp_path / "n-F16.gguf", tmp_path / "n-Q6_K.gguf", "Q6_K", 1)
    types = quantize.tensor_types(tmp_path / "n-Q6_K.gguf")
    assert {entry["type"] for entry in quantize.fallbacks(types, "Q6_K")} == {"Q8_0"}
    (gate,) = checks.type_gates(tmp_path / "n-Q6_K.gguf", "Q6_K")
    assert not gate.passed
    assert " is Q8_0" in gate.detail
    assert checks.type_gates(tmp_path / "n-Q6_K.gguf", "Q6_K", int(gate.value))[0].passed
    for kind in ("Q4_K_M", "Q6_K"):
        bound = quantize.demand_room(tmp_path / "n-F16.gguf", tmp_path / "x.gguf", kind)
        # Keys and vocabulary come beside the tensors; they are in the spare room.
        assert (tmp_path / f"n-{kind}.gguf").stat().st_size < bound


def test_need_of_disk_is_a_bound_and_said_before_anything_is_written(folded, progress, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize, "SPARE_BYTES", 1 << 20)
    source = quantize.model_gguf(folded.path / "gguf")
    for kind in ("Q8_0", "Q4_K_M"):
        bound = quantize.demand_room(source, tmp_path / "x.gguf", kind)
        quantize.quantize(source, tmp_path / f"{kind}.gguf", kind, 1)
        assert (tmp_path / f"{kind}.gguf").stat().st_size < bound < source.stat().st_size
    monkeypatch.setattr(quantize, "SPARE_BYTES", 1 << 60)
    (tmp_path / "out").mkdir()
    with pytest.raises(ResourceError, match=r"GB are free at .*\n.*GB for so8t-phi-3-Q8_0\.gguf"):
        quantize.run(Quantize(type="Q8_0"), {"fold": folded}, tmp_path / "out", progress)
    assert list((tmp_path / "out").iterdir()) == []


def test_type_that_nobody_planned_fails():
    with pytest.raises(StepFailed, match=r"output\.weight became F16"):
        quantize.fallbacks({"output.weight": ("F16", 256)}, "Q4_K_M")


def test_source_that_is_no_gguf_fails_with_llama_cpp_s_words(tmp_path):
    (tmp_path / "bad-F16.gguf").write_bytes(b"not a model")
    with pytest.raises(StepFailed, match=r"could not quantize bad-F16\.gguf"):
        quantize.quantize(tmp_path / "bad-F16.gguf", tmp_path / "out.gguf", "Q8_0", 1)
    assert not (tmp_path / "out.gguf").exists()


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds 0 F16 models"):
        quantize.model_gguf(tmp_path)


def test_a_file_that_goes_between_two_looks_ends_no_watch(tmp_path, monkeypatch):
    """It is renamed as soon as it is whole."""

    class Renamed(type(tmp_path)):
        looks = 0

        def exists(self):
            return True

        def stat(self, **more):
            Renamed.looks += 1
            raise FileNotFoundError(self)

    ended = []
    monkeypatch.setattr(threading, "excepthook", ended.append)
    monkeypatch.setattr(quantize, "LOOK_S", 0.001)
    with quantize._growing(Renamed(tmp_path / "x"), ended.append):
        deadline = time.monotonic() + 30
        while Renamed.looks < 3 and not ended and time.monotonic() < deadline:
            time.sleep(0.001)
    assert not ended
    assert Renamed.looks >= 3
