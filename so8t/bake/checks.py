"""The measurements behind the gates: each takes files, gives gates."""

from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from so8t import models, pulse
from so8t.bake.config import GUIDED, Gates, Loss
from so8t.bake.gate import Gate
from so8t.bake.parity import Floats, Parity, cosine_least
from so8t.bake.quantize import fallbacks, tensor_types
from so8t.bake.reference import Chats, Live, Report, unheard
from so8t.bake.texts import conversations
from so8t.errors import StepFailed
from so8t.llama import ImageReader, Llama, Part
from so8t.llama_chat import answer_logits
from so8t.thinking import IMAGE_TOKEN


def measure(
    path: Path, ids: list[list[int]], reference: list[Floats], threads: int, report: Report = unheard
) -> Parity:
    """Compare a GGUF's logits with the reference's on whole chats; an F32 cache, so that the number is the file's own."""
    parity = Parity()
    with Llama(path, context=max(map(len, ids)), kv="F32", threads=threads) as model:
        for number, (tokens, logits) in enumerate(zip(ids, reference, strict=True), 1):
            parity.add(logits, model.logits([tokens]), tokens)
            report(number, len(ids))
    return parity


def loss_gates(name: str, parity: Parity, loss: Loss) -> list[Gate]:
    """The three ceilings of a quantized file."""
    return [
        Gate(f"{name} mean KL", parity.kl, loss.kl_max),
        Gate(f"{name} top-1", parity.top1, loss.top1_min, ">="),
        Gate(f"{name} perplexity ratio", parity.perplexity_ratio, loss.perplexity_ratio_max),
        Gate(f"{name} logits not finite", parity.not_finite, 0),
    ]


def tokenizer_gates(path: Path, tokenizer: Any, texts: list[str]) -> list[Gate]:
    """Zero texts may have other ids in llama.cpp than in transformers."""
    with Llama(path, vocab_only=True) as model:
        wrong = [text for text in texts if model.tokenize(text) != models.reply_ids(tokenizer, text)]
    detail = f"of {len(texts)}" + (f", for example {wrong[0]!r}" if wrong else "")
    return [Gate("texts tokenised differently", len(wrong), 0, detail=detail)]


def template_gates(path: Path, tokenizer: Any, prompts: list[str]) -> list[Gate]:
    """Zero chats may be written otherwise by the file's own template, as llama-cpp-python renders it."""
    with Llama(path, vocab_only=True) as model:
        template = model.metadata("tokenizer.chat_template")
    render = Jinja2ChatFormatter(template, eos_token=tokenizer.eos_token or "", bos_token=tokenizer.bos_token or "")
    wrong = [
        chat
        for chat in conversations(prompts)
        if render(messages=chat).prompt
        != tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ]
    return [Gate("chats rendered differently", len(wrong), 0, detail=repr(wrong[0]) if wrong else "")]


def metadata_gates(path: Path, tokenizer: Any, hf: Path, name: str) -> list[Gate]:
    """Name, special tokens, stop tokens and chat template as read back from a file."""
    with Llama(path, vocab_only=True) as model:
        special = model.special_ids()
        first = tokenizer("a")["input_ids"][0]
        wanted: dict[str, tuple[Any, Any]] = {
            "general.name": (model.metadata("general.name"), name),
            "bos": (special["bos"], tokenizer.bos_token_id),
            "eos": (special["eos"], tokenizer.eos_token_id),
            "add_bos_token": (special["add_bos"], first == tokenizer.bos_token_id),
            "stop tokens": (model.ends(), models.stop_ids(hf)),
            "chat template": (model.metadata("tokenizer.chat_template"), tokenizer.chat_template),
        }
    wrong = [f"{key}: {found!r}, wanted {right!r}" for key, (found, right) in wanted.items() if found != right]
    return [Gate(f"{path.name} metadata that differ", len(wrong), 0, detail="; ".join(wrong))]


def type_gates(path: Path, kind: str, fallbacks_max: int = 0) -> list[Gate]:
    """F16 files hold F16 and F32 only; quantized ones what was planned, with no more fallbacks than that."""
    types = tensor_types(path)
    limit = 0 if kind == "F16" else fallbacks_max
    if kind == "F16":
        odd = [name for name, (found, _) in types.items() if found not in ("F16", "F32")]
    else:
        odd = [f"{entry['tensor']} is {entry['type']}" for entry in fallbacks(types, kind.removesuffix(GUIDED))]
    counts = Counter(found for found, _ in types.values())
    detail = ", ".join(odd[:3]) if odd else ", ".join(f"{count} {found}" for found, count in sorted(counts.items()))
    return [Gate(f"{path.name} tensors of another type", len(odd), limit, detail=detail)]


def finite_gate(path: Path) -> Gate:
    """Values of a file's F16 and F32 tensors that are infinite or not a number."""
    lost = 0
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.tensor_type.name in ("F16", "F32"):
            lost += int((~np.isfinite(tensor.data)).sum())
            pulse.beat()
    return Gate(f"{path.name} values not finite", lost, 0)


def image_gates(
    model_path: Path, mmproj: Path, live: Live, chats: Chats, tokenizer: Any, gates: Gates, threads: int
) -> list[Gate]:
    """Embeddings, prompt tokens and the greedy answer of the image path, transformers against llama.cpp."""
    row, answer = chats.images[0], live.answer
    assert answer is not None
    with Llama(model_path, threads=threads) as model, ImageReader(mmproj, model) as reader:
        cosine = cosine_least(live.embeddings, (reader.embed(image.image) for image in chats.images))
        text = models.chat_text(tokenizer, row.prompt, reader.marker)
        parts = reader.split(text, row.image)
        wanted = _text_parts(models.prompt_ids(tokenizer, row.prompt, len(live.embeddings[0])), tokenizer)
        differ = sum(list(part) != right for part, right in zip(_ids_of(parts), wanted, strict=True))
        found = np.stack([
            reader.last_logits(text, row.image),
            *(model.last_logits([*parts, answer.ids[:count]]) for count in range(1, len(answer.logits))),
        ])  # fmt: skip
        context, end = model.context, int(model.special_ids()["eos"])
    ids = answer.ids[: len(answer.logits) - 1]
    chatted = answer_logits(model_path, mmproj, row.prompt, row.image, ids, end, context, threads)
    return [
        Gate("image embeddings, least cosine", cosine, gates.image_cosine_min, ">="),
        Gate("image prompt, parts tokenised differently", differ, 0),
        Gate("image answer, regret of greedy tokens", regret(answer.logits, found), gates.answer_regret_max),
        Gate("the same by create_chat_completion", regret(answer.logits, chatted), gates.answer_regret_max),
    ]


def regret(reference_BV: Floats, found_BV: Floats) -> float:
    """The most that a token which the found model prefers is worse by the reference's logits; 0 for the same answer."""
    rows = np.arange(len(reference_BV))
    worse = reference_BV.max(-1) - reference_BV[rows, found_BV.argmax(-1)]
    return float(worse.max())


def _ids_of(parts: list[Part]) -> list[list[int]]:
    found = [list(map(int, part)) for part in parts if not isinstance(part, np.ndarray)]
    if len(found) != 2:
        raise StepFailed(f"mtmd made {len(found)} text parts of an image prompt, not 2")
    return found


def _text_parts(ids: list[int], tokenizer: Any) -> list[list[int]]:
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    start, count = ids.index(image_id), ids.count(image_id)
    return [ids[:start], ids[start + count :]]
