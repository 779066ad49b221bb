"""Tensor data and keys against llama.cpp's own converter, an external program.

SO8T_CONVERTER names its `convert_hf_to_gguf.py`, as the llama-cpp-python source distribution holds it (beside its own
gguf package); without it these tests are skipped.
"""

import os
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch

from so8t.bake.gguf_model import write_model
from so8t.bake.quantize import quantize
from so8t.so8.merge import Adapter, Folded, Tensors
from tests.bake.shapes import Shape, write

CONVERTER = os.environ.get("SO8T_CONVERTER", "")
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not CONVERTER, reason="SO8T_CONVERTER names no convert_hf_to_gguf.py"),
]
# The converter knows the rule of a byte-level vocabulary by the hash of one text's ids: no made vocabulary has that.
RUN = """
import sys
from pathlib import Path
path = Path(sys.argv[1])
sys.path[:0] = [str(path.parent / "gguf-py"), str(path.parent)]
import convert_hf_to_gguf
from conversion.base import TextModel
rule = sys.argv[2]
if rule:
    TextModel.get_vocab_base_pre = lambda self, tokenizer: rule
sys.argv = [str(path), *sys.argv[3:]]
convert_hf_to_gguf.main()
"""
SHAPES = {
    "plain rope": Shape(longrope=False),
    "longrope in shards": Shape(shards=2),
    "grouped queries": Shape(kv_heads=2, rotary_share=0.5),
    "tied head": Shape(tied=True),
    "byte-level bpe, tied, grouped": Shape(bpe=True, tied=True, kv_heads=1, rotary_share=0.75),
    "fp32": Shape(dtype=torch.float32),
    "fp16": Shape(dtype=torch.float16),
}
# Ours says what it was made from; theirs derives names from the folder's name, and counts tensors differently nowhere.
OURS_ONLY = {"so8t.", "general.license", "general.base_model."}
THEIRS_ONLY = {"general.basename", "general.finetune", "general.version", "general.sampling."}


@pytest.fixture(scope="module", params=list(SHAPES), ids=list(SHAPES))
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shape") / "Toy-phi-3"
    return write(folder, SHAPES[request.param]), SHAPES[request.param]


def theirs(folder, shape, kind, out):
    arguments = [
        CONVERTER,
        "gpt-4o" if shape.bpe else "",
        str(folder),
        "--outtype",
        kind.lower(),
        "--outfile",
        str(out),
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return gguf.GGUFReader(out)


def ours(folder, kind, out):
    folded = Folded(Tensors.of_model(folder), Adapter({}))
    write_model(out, folder, folded, folder, "Toy Phi 3", kind, {}, lambda done, total: None)
    return gguf.GGUFReader(out)


def tensors_of(reader):
    return {tensor.name: (tensor.tensor_type.name, tensor.shape.tolist(), tensor.data) for tensor in reader.tensors}


def demand_same_tensors(found, wanted):
    a, b = tensors_of(found), tensors_of(wanted)
    assert set(a) == set(b)
    for name, (kind, shape, data) in b.items():
        assert a[name][:2] == (kind, shape), name
        assert np.array_equal(a[name][2].view(np.uint8), data.view(np.uint8)), name


def keys_of(reader, left_out):
    own = ("GGUF.", *left_out)
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith(own)}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_tensors_and_keys_are_the_converter_s(model, kind, tmp_path):
    folder, shape = model
    found = ours(folder, kind, tmp_path / "ours.gguf")
    wanted = theirs(folder, shape, kind, tmp_path / "theirs.gguf")
    demand_same_tensors(found, wanted)
    a, b = keys_of(found, OURS_ONLY), keys_of(wanted, THEIRS_ONLY)
    scores = [keys.pop("tokenizer.ggml.scores", []) for keys in (a, b)]
    # Said in every file, so that nothing is left to llama.cpp's default.
    assert a.pop("tokenizer.ggml.add_eos_token") == b.pop("tokenizer.ggml.add_eos_token", False)
    assert a == b
    demand_same_order(*scores, a["tokenizer.ggml.token_type"])


def demand_same_order(found, wanted, types):
    """A merge's rank in tokenizer.json and SentencePiece's score are other numbers in the same order."""
    assert len(found) == len(wanted)
    normal = [i for i, kind in enumerate(types[: len(found)]) if kind == gguf.TokenType.NORMAL]
    # What no merge makes has no rank: a single character, whose score nothing asks for.
    made = [i for i in normal if found[i] > min(found[j] for j in normal)]
    assert sorted(made, key=lambda i: -found[i]) == sorted(made, key=lambda i: -wanted[i])


def test_q8_0_is_the_converter_s(model, tmp_path):
    """From our F16 file, by llama.cpp's quantizer; the converter goes there from the checkpoint in one step.

    F16 holds what bf16 does of weights of this size, but not fp32: such a checkpoint goes through our F32 file here.
    """
    folder, shape = model
    ours(folder, "F32" if shape.dtype == torch.float32 else "F16", tmp_path / "ours-wide.gguf")
    quantize(tmp_path / "ours-wide.gguf", tmp_path / "ours.gguf", "Q8_0", 1)
    wanted = theirs(folder, shape, "Q8_0", tmp_path / "theirs.gguf")
    demand_same_tensors(gguf.GGUFReader(tmp_path / "ours.gguf"), wanted)


def test_without_the_sentencepiece_file_the_vocabulary_is_the_same(tmp_path):
    """The converter stops there; ours reads tokenizer.json alone."""
    pair = [ours(write(tmp_path / str(there), Shape(sentencepiece_file=there)), "F16", tmp_path / f"{there}.gguf") for there in (True, False)]  # fmt: skip
    keys = [keys_of(reader, ()) for reader in pair]
    assert keys[0] == keys[1]
