import ctypes

import llama_cpp
import numpy as np
import pytest
import torch

from so8t import models
from so8t.bake.quantize import model_gguf
from so8t.errors import InputError
from so8t.llama import ImageReader, Llama, log_softmax
from so8t.so8.adapted import load_system
from tests.bake.conftest import picture


@pytest.fixture(scope="module")
def model(folded):
    with Llama(model_gguf(folded.path / "gguf"), kv="F32", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def exact(folded, tmp_path_factory):
    """The same weights as F32, which loses nothing."""
    path = tmp_path_factory.mktemp("f32") / "phi3-F32.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = llama_cpp.LLAMA_FTYPE_ALL_F32, 1
    source = str(model_gguf(folded.path / "gguf"))
    assert llama_cpp.llama_model_quantize(source.encode(), str(path).encode(), ctypes.byref(params)) == 0
    with Llama(path, kv="F32", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def reader(folded, model):
    with ImageReader(folded.path / "gguf" / "so8t-phi-3-mmproj-F16.gguf", model) as opened:
        yield opened


def test_context_is_the_original_one(model):
    assert model.context == 512
    assert model.metadata("general.name") == "so8t-phi-3"
    assert model.metadata("no.such.key") == ""


def test_scores_are_the_log_softmax_of_the_logits(model):
    prompt, continuations = model.tokenize("こんにちは、"), [model.tokenize("world"), [5], model.tokenize("世界です")]
    scores = model.score([prompt], continuations)
    assert [len(found) for found in scores] == [len(ids) for ids in continuations]
    assert model.score([prompt], continuations) == scores
    assert _apart(model) < 2**-11


def test_scores_of_an_f32_file_differ_by_float32_roundings(exact):
    """The F16 file's own weights: what its scores differ by is the F16 of its multiplications, not another token."""
    assert _apart(exact) < 8 * np.finfo(np.float32).eps


def _apart(model: Llama) -> float:
    """Largest difference of a score from the whole prompt's log-softmax, as a share of the largest logit.

    llama.cpp takes another kernel for one row than for several, and sums in another order. Where weights are F16 it also
    rounds what they are multiplied with to F16, so a difference in the last bit can become one of 2**-11.
    """
    draw, found = np.random.default_rng(0), []
    for length in (1, 2, 3, 5, 16) * 3:
        ids = draw.integers(5, model.vocab_size - 20, 24 + length).tolist()
        logits = model.logits([ids])
        table, (scores,) = log_softmax(logits), model.score([ids[:24]], [ids[24:]])
        wanted = [table[23 + i, token] for i, token in enumerate(ids[24:])]
        found.append(np.abs(np.array(scores) - wanted).max() / np.abs(logits).max())
    print(f"largest difference: {max(found):.1e} of the largest logit")  # noqa: T201
    return float(max(found))


def test_generation_is_the_argmax_loop(model):
    prompt = model.tokenize("<|user|>\nhello<|end|>\n<|assistant|>\n")
    ids = []
    for _ in range(6):
        ids.append(int(model.last_logits([prompt + ids]).argmax()))
    assert model.generate([prompt], 6, stop=[]) == ids
    assert model.generate([prompt], 6, stop=[ids[3]]) == ids[: ids.index(ids[3])]


def test_parts_count_as_one_prompt(model):
    ids = model.tokenize("one two three four")
    np.testing.assert_allclose(model.logits([ids[:2], [], ids[2:]]), model.logits([ids]), atol=1e-5)


def test_text_comes_back(model):
    text = "<|user|>\nねこ🐈 and <final>7</final>"
    assert "ねこ🐈 and" in model.detokenize(model.tokenize(text))
    assert "<final>" not in model.detokenize(model.tokenize("<|end|>"), special=False)


def test_image_embeddings_are_transformers_own(world, reader):
    system = load_system(world.base.path, world.train.path, adapted=True)
    images = [picture(seed) for seed in range(3)]
    with torch.inference_mode():
        wanted = system.model.get_image_features(pixel_values=system.pixel_values(images)).pooler_output
    for image, features in zip(images, wanted, strict=True):
        found, right = reader.embed(image), features.numpy()
        assert found.shape == right.shape == (16, 256)
        cosines = (found * right).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(right, axis=-1)
        assert cosines.min() > 0.9999
    assert np.abs(reader.embed(images[0]) - reader.embed(images[1])).max() > 0.1


def test_image_prompt_is_what_transformers_computes(world, model, reader):
    """Parts by mtmd, parts by our own ids, and mtmd's own evaluation: all three as transformers."""
    system = load_system(world.base.path, world.train.path, adapted=True)
    image = picture(9)
    ids = models.prompt_ids(system.tokenizer, "What is it?", 16)
    with torch.inference_mode():
        logits = system.model(input_ids=torch.tensor([ids]), pixel_values=system.pixel_values([image])).logits[0, -1]
    text = models.chat_text(system.tokenizer, "What is it?", reader.marker)
    parts = reader.split(text, image)
    first = ids.index(system.vision.image_token_id)
    assert [list(parts[0]), list(parts[2])] == [ids[:first], ids[first + 16 :]]
    for found in (model.last_logits(parts), reader.last_logits(text, image)):
        np.testing.assert_allclose(found, logits.numpy(), atol=0.02)
    assert float(logits.std()) > 0.5


def test_prompts_that_do_not_fit_are_refused(model, reader):
    with pytest.raises(InputError, match="a prompt of 513 tokens"):
        model.logits([[5] * 513])
    with pytest.raises(InputError, match="a prompt of 0 tokens"):
        model.logits([[]])
    with pytest.raises(InputError, match="exactly one image marker"):
        reader.split("no marker", picture(0))


def test_bad_files_are_refused_and_stderr_stays_silent(tmp_path, model, capfd):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF nonsense")
    with pytest.raises(InputError, match=r"llama\.cpp cannot load"):
        Llama(tmp_path / "bad.gguf")
    with pytest.raises(InputError, match=r"llama\.cpp cannot load"):
        ImageReader(tmp_path / "bad.gguf", model)
    assert capfd.readouterr().err == ""
