"""The benchmark's scorers beside their peers, on the same model in the same run; prints ratios and agreement.

    python -m benchmarks.bench_scorer [--items 8] [--words 120] [--only parity,prefix,generation,harness]

parity      transformers against the F32 GGUF of the same tensors: log-likelihoods (F32 cache) and greedy ids
prefix      4-choice items: the prompt read once for all choices, against once for each
generation  this project's greedy loop against llama.cpp's own loop with its greedy sampler, through the same binding
harness     transformers scorer against lm-evaluation-harness's HFLM on the same items (where it is installed)

The model has random weights; times are CPU-seconds of this process, which a busy machine stretches less than the wall.
"""

import argparse
import ctypes
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.random_phi3 import make_base
from so8t import durable
from so8t.bake.gguf_file import FileType
from so8t.bake.gguf_model import write_model
from so8t.benchmark.prompts import Question, Tokenizer, continuations
from so8t.benchmark.scorer_llama import LlamaScorer
from so8t.benchmark.scorer_transformers import TransformersScorer
from so8t.config import Machine
from so8t.llama import Llama, lib
from so8t.models import load_base, load_tokenizer, write_thinking_tokenizer
from so8t.so8 import vit
from so8t.so8.merge import Adapter, Folded, Tensors
from so8t.thinking import IMAGE_TOKEN

SHAPE = {"hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6, "num_key_value_heads": 6}
LAYERS, CONTEXT = 6, 1024
MACHINE = Machine(threads=1, device="cpu")
WORDS = (
    "the",
    "river",
    "carries",
    "small",
    "boats",
    "past",
    "old",
    "houses",
    "where",
    "people",
    "cook",
    "rice",
    "today",
)
ROUNDS = 3


def make(folder: Path) -> Tokenizer:
    """A base, a training's tokenizer and tower beside it, and the base's F32 and F16 GGUF."""
    make_base(folder / "base", LAYERS, SHAPE)
    ids = write_thinking_tokenizer(folder / "base", folder / "train" / "tokenizer")
    vision = vit.describe(
        hidden=64, layers=1, heads=1, intermediate=64, image_size=32, patch_size=16, image_token_id=ids[IMAGE_TOKEN]
    )
    model = vit.join(load_base(folder / "base"), vision)
    (folder / "train" / "vision").mkdir()
    save_file(vit.vision_state(model), folder / "train" / "vision" / "initial.safetensors")
    durable.write_json(
        folder / "train" / "vision" / "config.json", {**json.loads(json.dumps(vision.__dict__)), "alpha": 1.0}
    )
    kinds: tuple[FileType, ...] = ("F32", "F16")
    for kind in kinds:
        folded = Folded(Tensors.of_model(folder / "base"), Adapter({}))
        write_model(
            folder / f"{kind}.gguf", folder / "base", folded, folder / "train" / "tokenizer", "toy-phi-3", kind, {},
            lambda done, total: None,
        )  # fmt: skip
    return Tokenizer(folder / "train" / "tokenizer")


def texts(items: int, words: int) -> list[tuple[str, list[str]]]:
    """(prompt, four continuations)."""
    generator = np.random.default_rng(3)

    def some(count: int) -> str:
        return " ".join(generator.choice(WORDS, count))

    return [(some(words), [" " + some(int(n)) for n in generator.integers(2, 7, 4)]) for _ in range(items)]


def asked(tokenizer: Tokenizer, items: int, words: int) -> list[Question]:
    """The items as ids."""
    made = [
        continuations(f"{n:03}", prompt, options, "", "raw", tokenizer, CONTEXT)
        for n, (prompt, options) in enumerate(texts(items, words))
    ]
    return [question for question in made if isinstance(question, Question)]


def seconds(*calls: Callable[[], Any]) -> list[float]:
    """CPU-seconds of each call: the least of some rounds, taken in turns."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            began = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - began)
    return best


def each_alone(questions: list[Question]) -> list[Question]:
    """One question for each choice: nothing to share."""
    return [replace(q, choices=(choice,)) for q in questions for choice in q.choices]


def parity(folder: Path, tokenizer: Tokenizer, items: int, words: int) -> None:
    """Largest difference of a choice's log-likelihood, and greedy replies that are the same."""
    questions = asked(tokenizer, items, words)
    live = TransformersScorer(folder / "base", folder / "train", adapted=False, machine=MACHINE)
    for kv in ("F32", "F16"):
        baked = LlamaScorer(folder / "F32.gguf", folder / "none", machine=MACHINE, context=CONTEXT, kv=kv)
        one, other = (np.array(scorer.choose(questions)) for scorer in (live, baked))
        line = (
            f"parity: {len(questions)} items x 4, F32 GGUF, {kv} cache: max |d loglik| {np.abs(one - other).max():.2e}"
        )
        print(f"{line}, same choice {(one.argmax(1) == other.argmax(1)).sum()}, spread {np.ptp(one):.1f} nats")
        if kv == "F32":
            same = sum(live.generate(q, 12, ()).ids == baked.generate(q, 12, ()).ids for q in questions)
            print(f"parity: greedy ids identical on {same} of {len(questions)} items (12 tokens each)")
        baked.close()


def prefix(folder: Path, tokenizer: Tokenizer, items: int, words: int) -> None:
    """How much reading the prompt once saves."""
    questions = asked(tokenizer, items, words)
    tokens = round(float(np.mean([len(q.tail) for q in questions])))
    baked = LlamaScorer(folder / "F16.gguf", folder / "none", machine=MACHINE, context=CONTEXT)
    live = TransformersScorer(folder / "base", folder / "train", adapted=False, machine=MACHINE)
    for name, scorer in (("llama.cpp", baked), ("transformers", live)):
        alone = each_alone(questions)

        def naive(scorer: Any = scorer, alone: list[Question] = alone) -> None:
            for question in alone:
                scorer.choose([question])

        shared_s, naive_s = seconds(lambda scorer=scorer: scorer.choose(questions), naive)
        print(
            f"prefix: {name}, prompts of {tokens} tokens: {shared_s:.2f} s shared, {naive_s:.2f} s not: {naive_s / shared_s:.2f}x"
        )
    baked.close()


def raw_greedy(model: Llama, ids: list[int], count: int) -> list[int]:
    """llama.cpp's own way: decode, its greedy sampler, decode."""
    lib.llama_memory_clear(model._memory, True)
    sampler = lib.llama_sampler_init_greedy()
    tokens = (lib.llama_token * len(ids))(*ids)
    batch, found = lib.llama_batch_get_one(tokens, len(ids)), []
    holder = (lib.llama_token * 1)()
    for _ in range(count):
        assert lib.llama_decode(model._context, batch) == 0
        token = lib.llama_sampler_sample(sampler, model._context, -1)
        found.append(int(token))
        holder[0] = token
        batch = lib.llama_batch_get_one(ctypes.cast(holder, ctypes.POINTER(lib.llama_token)), 1)
    lib.llama_sampler_free(sampler)
    return found


def generation(folder: Path, tokenizer: Tokenizer, items: int, words: int) -> None:
    """What this project's loop costs over llama.cpp's."""
    questions = asked(tokenizer, max(items // 2, 1), words // 2)
    with Llama(folder / "F16.gguf", context=CONTEXT, threads=1) as model:
        prompts, count = [list(q.tail) for q in questions], 48
        mine = [model.generate([ids], count, ()) for ids in prompts]
        assert mine == [raw_greedy(model, ids, count) for ids in prompts]
        mine_s, raw_s = seconds(
            lambda: [model.generate([ids], count, ()) for ids in prompts],
            lambda: [raw_greedy(model, ids, count) for ids in prompts],
        )
    print(
        f"generation: {len(prompts)} x {count} tokens, same ids: {mine_s:.2f} s, raw llama.cpp {raw_s:.2f} s: {mine_s / raw_s:.3f}x"
    )


def harness(folder: Path, tokenizer: Tokenizer, items: int, words: int) -> None:
    """lm-evaluation-harness's transformers backend on the same prompts and choices."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ModuleNotFoundError:
        print("harness: lm_eval is not installed")
        return
    prompts = texts(items, words)
    requests = [SimpleNamespace(args=(prompt, option)) for prompt, options in prompts for option in options]
    live = TransformersScorer(folder / "base", folder / "train", adapted=False, machine=MACHINE)
    base, words_of = load_base(folder / "base"), load_tokenizer(folder / "train" / "tokenizer")
    for size in (1, 8):
        theirs = HFLM(pretrained=base, tokenizer=words_of, batch_size=size, max_length=CONTEXT)
        questions = []
        for prompt, options in prompts:  # the very ids that the harness asks
            pairs = [theirs._encode_pair(prompt, option) for option in options]
            choices = tuple(tuple(choice) for _, choice in pairs)
            questions.append(Question(prompt, (), b"", 0, tuple(pairs[0][0]), (), choices))
        answer = partial(theirs.loglikelihood, requests, disable_tqdm=True)
        one = np.array(live.choose(questions))
        other = np.array([value for value, _ in answer()]).reshape(-1, 4)
        mine_s, their_s = seconds(partial(live.choose, questions), answer)
        print(
            f"harness: batch {size}: {mine_s:.2f} s, HFLM {their_s:.2f} s: {their_s / mine_s:.2f}x as fast; "
            f"max |d loglik| {np.abs(one - other).max():.1e}"
        )


PARTS = {"parity": parity, "prefix": prefix, "generation": generation, "harness": harness}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--words", type=int, default=120)
    parser.add_argument("--only", default=",".join(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer = make(folder)
        for name in options.only.split(","):
            PARTS[name](folder, tokenizer, options.items, options.words)


if __name__ == "__main__":
    main()
