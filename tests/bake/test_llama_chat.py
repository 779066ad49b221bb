"""llama-cpp-python's own chat handler on our files, against transformers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from so8t import models
from so8t.bake.checks import regret
from so8t.bake.quantize import model_gguf
from so8t.errors import InputError
from so8t.llama import ImageReader, Llama
from so8t.llama_chat import answer_logits
from so8t.preprocess import pictures
from so8t.preprocess.config import Preprocess
from so8t.records import Record
from so8t.so8.adapted import load_system
from tests.bake.conftest import picture

NEW_TOKENS = 4


@pytest.fixture(scope="module")
def system(world):
    return load_system(world.base.path, world.train.path, adapted=True)


@torch.inference_mode()
def greedy(system, prompt, png):
    """transformers' own greedy answer, and the logits `[1 + tokens, vocab]` that chose it."""
    ids = models.prompt_ids(system.tokenizer, prompt, system.vision.tokens)
    pixels, rows, chosen = system.pixel_values([png]), [], []
    for _ in range(NEW_TOKENS + 1):
        logits = system.model(input_ids=torch.tensor([ids + chosen]), pixel_values=pixels).logits[0, -1]
        logits[system.vision.image_token_id] = -torch.inf  # it would ask for a second picture
        rows.append(logits.numpy())
        chosen.append(int(logits.argmax()))
    return chosen[:NEW_TOKENS], np.stack(rows)


@pytest.mark.parametrize("prompt", ["What is it?", "<image><|end|>\n<__media__> 何?"])
def test_create_chat_completion_says_what_transformers_says(folded, system, prompt):
    ids, wanted = greedy(system, prompt.replace("<__media__>", "< __media__>"), picture(5))
    gguf = model_gguf(folded.path / "gguf")
    mmproj = folded.path / "gguf" / "so8t-phi-3-mmproj-F16.gguf"
    found = answer_logits(gguf, mmproj, prompt, picture(5), ids, system.tokenizer.eos_token_id, 256, 1)
    found[:, system.vision.image_token_id] = -np.inf
    assert found.shape == wanted.shape
    assert regret(wanted, found) <= 0.05
    usable = np.isfinite(wanted)
    np.testing.assert_allclose(found[usable], wanted[usable], atol=0.02)
    assert wanted[usable].std() > 0.5


def test_picture_of_another_size_is_refused_on_both_sides_and_alike_once_scaled(folded, system):
    data = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    mmproj = folded.path / "gguf" / "so8t-phi-3-mmproj-F16.gguf"
    with Llama(model_gguf(folded.path / "gguf"), threads=1) as model, ImageReader(mmproj, model) as reader:
        for refuse in (reader.embed, lambda png: system.pixel_values([png])):
            with pytest.raises(InputError, match="an image of 80x48"):
                refuse(data.getvalue())
        scaled = pictures.picture(Record("a", "image", "en", "?", media=data.getvalue()), Preprocess(image_size=32))
        with torch.inference_mode():
            wanted = system.model.get_image_features(pixel_values=system.pixel_values([scaled])).pooler_output[0]
        found = reader.embed(scaled)
    np.testing.assert_allclose(found, wanted.numpy(), atol=0.02)
    # The very pixels: what the tower reads is the file's, byte for byte.
    again = np.asarray(Image.open(io.BytesIO(scaled)))
    back = system.pixel_values([scaled])[0].permute(1, 2, 0).numpy() * 0.5 + 0.5
    np.testing.assert_array_equal(np.round(back * 255).astype(np.uint8), again)
