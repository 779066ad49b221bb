"""Brief next-token pretraining of the demo base, resumable to the bit.

A batch is a pure function of seed and step, and so is the learning rate; the state is weights and
AdamW moments. A killed run goes on from the last checkpoint and ends in the same bytes.
"""

import hashlib
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from so8t import durable
from so8t.artifacts import hash_file
from so8t.collect.config import DemoBase
from so8t.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import Phi3ForCausalLM, PreTrainedTokenizerBase

STATE = "pretraining.json"
CHECKPOINT_STEPS = 25
WARMUP_STEPS = 20
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
CLIP_NORM = 1.0
# Part of the recipe, not of the machine: sums over more threads may round differently. And on a busy machine two
# threads wait for each other: ten times slower was seen.
THREADS = 2
# With transformers' 0.02 no logit exceeds 6 for a token that the short text lacks, and no later
# training of adapters can make such a token certain; real models' rows are this long.
HEAD_STD = 0.1


def pretrain(
    config: DemoBase, geometry: dict[str, Any], stream: "torch.Tensor", out: Path, progress: Progress
) -> "Phi3ForCausalLM":
    """Train on windows of `stream` (ids, [tokens]) and give the model in fp32; the checkpoint stays in `out`."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        torch.manual_seed(config.seed)
        model = Phi3ForCausalLM._from_config(
            Phi3Config(**geometry), attn_implementation="eager", dtype=torch.float32
        ).train()
        torch.nn.init.normal_(model.lm_head.weight, std=HEAD_STD)
        optimizer = torch.optim.AdamW(_groups(model), lr=config.learning_rate, betas=BETAS)
        done = _restore(model, optimizer, out)
        for step in range(done, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _rate(step, config.steps)
            ids = _batch(stream, config, step)
            loss = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            progress.update(step + 1, config.steps, "pretraining the demo base", loss=loss.item())
            if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == config.steps:
                _save(model, optimizer, step + 1, out)
        return model.eval()
    finally:
        torch.set_num_threads(threads)


def token_stream(
    tokenizer: "PreTrainedTokenizerBase", lines: list[str], chats: list[tuple[str, str]], seed: int
) -> "torch.Tensor":
    """All lines and chats as one stream of ids, in a seeded order; a chat ends as the template ends it."""
    import torch

    documents = [f"{line}{tokenizer.eos_token}" for line in lines]
    for question, answer in chats:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        documents.append(str(tokenizer.apply_chat_template(messages, tokenize=False)))
    random.Random(seed).shuffle(documents)  # noqa: S311
    return torch.tensor(
        [token for text in documents for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    )


def perplexity(model: "Phi3ForCausalLM", stream: "torch.Tensor", length: int) -> float:
    """exp of the mean next-token loss over the whole stream, window by window."""
    import torch

    windows = stream[: len(stream) // length * length].view(-1, length)
    with torch.inference_mode():
        losses = [float(model(input_ids=ids, labels=ids).loss) * len(ids) for ids in torch.split(windows, 16)]
    return math.exp(sum(losses) / len(windows))


def forget(out: Path) -> None:
    """Remove the checkpoint: called when the final files lie there."""
    for path in (out / STATE, *out.glob("pretraining-*.safetensors")):
        path.unlink(missing_ok=True)


def _groups(model: "Phi3ForCausalLM") -> list[dict[str, Any]]:
    """Norms are not decayed."""
    parameters = [parameter for _, parameter in sorted(model.named_parameters())]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
    ]


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _batch(stream: "torch.Tensor", config: DemoBase, step: int) -> "torch.Tensor":
    """Windows at random places, [batch, length]."""
    import torch

    seed = int.from_bytes(hashlib.sha256(f"{config.seed}:{step}".encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(stream) - config.length + 1, (config.batch, 1), generator=generator)
    return stream[starts + torch.arange(config.length)]


def _save(model: "Phi3ForCausalLM", optimizer: "torch.optim.AdamW", step: int, out: Path) -> None:
    """The weights and moments first, then the note that names them; then older ones go."""
    import torch
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        tensors |= {
            name: parameter.detach(),
            f"exp_avg.{name}": state["exp_avg"],
            f"exp_avg_sq.{name}": state["exp_avg_sq"],
        }
    path = out / f"pretraining-{step:06d}.safetensors"
    durable.write_bytes(path, save(tensors))
    durable.write_json(out / STATE, {"file": path.name, "sha256": hash_file(path), "step": step})
    for old in out.glob("pretraining-*.safetensors"):
        if old != path:
            old.unlink()


def _restore(model: "Phi3ForCausalLM", optimizer: "torch.optim.AdamW", out: Path) -> int:
    """Load the checkpoint if it verifies; give the number of steps done."""
    import torch
    from safetensors.torch import load_file

    if not (out / STATE).is_file():
        return 0
    note = durable.read_json(out / STATE)
    path = out / note["file"]
    if not path.is_file() or hash_file(path) != note["sha256"]:
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(note["step"])),
                "exp_avg": tensors[f"exp_avg.{name}"],
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
            }
    return int(note["step"])
