from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from so8t import models, records
from so8t.artifacts import hash_file
from so8t.bake import imatrix, quantize
from so8t.bake.config import Imatrix, Quantize
from so8t.bake.imatrix_file import read, write
from so8t.config import load_config
from so8t.errors import InputError, StepFailed
from so8t.step import Ref, lookup
from so8t.wiring import STEPS
from tests.bake.conftest import artifact

ROOT = Path(__file__).resolve().parent.parent.parent
CHATS = Imatrix(chats=3, tokens_max=40)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    rows = [
        records.Record(f"row-{n}", "text", "ja", f"質問 {n}: how many?", f"<final>{n} eggs</final>", split="train")
        for n in range(5)
    ]
    records.write(folder / "train.parquet", [*rows, records.Record("silent", "text", "ja", "no reply", split="train")])
    return artifact(folder, "preprocess")


@pytest.fixture(scope="module")
def guide(tmp_path_factory, data, world, progress):
    out = tmp_path_factory.mktemp("imatrix")
    facts = imatrix.run(CHATS, {"data": data, "base": world.base, "train": world.train}, out, progress)
    assert facts["chats"] == 3
    return artifact(out, "bake.imatrix", **facts)


@torch.inference_mode()
def test_columns_are_the_mean_squares_of_what_the_linears_read(guide, data, folded):
    hf = folded.path / "hf"
    tokenizer, model = models.load_tokenizer(hf), models.load_base(hf)  # bf16: some digits fewer
    ids = imatrix.read_chats(data.path / "train.parquet", tokenizer, CHATS)
    # The head reads what comes out of the last norm; the first attention what comes out of the first.
    hidden = [model.model(input_ids=torch.tensor([row]), output_hidden_states=True) for row in ids]
    found = read(guide.path / "imatrix.gguf")
    last = torch.cat([out.last_hidden_state[0] for out in hidden])
    first = model.model.layers[0].input_layernorm(torch.cat([out.hidden_states[0][0] for out in hidden]))
    for name, values in {"output.weight": last, "blk.0.attn_qkv.weight": first}.items():
        np.testing.assert_allclose(found[name], values.square().mean(0).numpy(), rtol=0.02)
    assert guide.manifest.facts["tokens"] == len(last)
    assert len(found) == 4 * 2 + 1


def test_guided_file_errs_less_where_it_matters(guide, folded, progress, tmp_path):
    inputs = {"fold": folded, "imatrix": guide}
    plain = quantize.run(Quantize(type="Q4_K_M"), {"fold": folded}, tmp_path, progress)
    guided = quantize.run(Quantize(type="Q4_K_M-imat"), inputs, tmp_path, progress)
    assert (plain["guided_tensors"], guided["guided_tensors"]) == (0, 9)
    assert guided["types"] == plain["types"]
    columns, files = read(guide.path / "imatrix.gguf"), {}
    for kind in ("F16", "Q4_K_M", "Q4_K_M-imat"):
        path = tmp_path / f"so8t-phi-3-{kind}.gguf" if kind != "F16" else quantize.model_gguf(folded.path / "gguf")
        files[kind] = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    better = [
        weighted_error(files, "Q4_K_M-imat", name, mean) < weighted_error(files, "Q4_K_M", name, mean)
        for name, mean in columns.items()
    ]
    assert all(better)
    again = tmp_path / "again"
    again.mkdir()
    quantize.run(Quantize(type="Q4_K_M-imat"), inputs, again, progress)
    name = "so8t-phi-3-Q4_K_M-imat.gguf"
    assert hash_file(again / name) == hash_file(tmp_path / name)


def weighted_error(files, kind, name, mean):
    return float((np.square(files[kind][name].astype(np.float64) - files["F16"][name]) * mean).sum())


def test_matrix_of_another_model_is_refused(guide, folded, tmp_path):
    columns = read(guide.path / "imatrix.gguf")
    source = quantize.model_gguf(folded.path / "gguf")
    short = {name: mean for name, mean in columns.items() if name != "output.weight"}
    narrow = {**columns, "output.weight": columns["output.weight"][:8]}
    for wrong in (short, narrow):
        with pytest.raises(InputError, match=r"does not fit .*output\.weight"):
            quantize.quantize(source, tmp_path / "x.gguf", "Q4_K_M", 1, wrong)
    assert list(tmp_path.iterdir()) == []


def test_linear_that_read_nothing_is_refused(tmp_path):
    with pytest.raises(StepFailed, match=r"the inputs of blk\.0\.ffn_up\.weight are all zero"):
        write(tmp_path / "imatrix.gguf", {"blk.0.ffn_up.weight": np.zeros(8)}, 4, 8)


def test_training_split_without_text_is_refused(tmp_path, folded):
    records.write(tmp_path / "train.parquet", [records.Record("a", "image", "en", "What?", "<final>1</final>")])
    with pytest.raises(InputError, match="no text with a reply"):
        imatrix.read_chats(tmp_path / "train.parquet", None, CHATS)


def test_matrix_is_made_only_where_a_guided_type_asks_for_it():
    plain, guided = (
        load_config(ROOT / "configs" / "demo.yaml", [f"bake.quantizations=[{names}]"])
        for names in ("Q8_0", "Q8_0, Q4_K_M-imat")
    )
    assert STEPS["bake.imatrix"].parts(plain) == []
    assert STEPS["bake.imatrix"].parts(guided) == [""]
    needs = lookup(Ref("bake.quantize", "Q4_K_M-imat"), guided).needs
    assert set(needs(guided, "Q8_0")) == {"fold"}
    assert set(needs(guided, "Q4_K_M-imat")) == {"fold", "imatrix"}
    assert guided.bake.gates.quantized.of("Q4_K_M-imat") == guided.bake.gates.quantized.Q4_K_M
