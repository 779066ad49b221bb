"""A task with a known ceiling: the mean reward that PPO reaches with rotations, low-rank terms, and both.

    OMP_NUM_THREADS=1 python -m benchmarks.ppo_ceiling [--updates 120] [--seeds 0 1 2] [--methods so8 so8+lora lora oft peft-oft16 ...]

A small random Phi-3 whose lm_head is scaled by 10 (without that, hardly any policy of this size differs from chance)
is rewarded for the share of tokens with an even id: .5 by chance, 1 at the ceiling, since nothing is charged for the
KL. Rollouts of 128 replies of 4 tokens (in a long reply one token hardly moves the reward, and learning it takes many
more); the same prompts, seeds, rate and number of updates for every method.

    so8        SO(8) rotations on both sides of the four linears
    so8+lora   the same with a low-rank term
    lora       a low-rank term alone, of rank 4: a rotation on both sides has as many parameters as rank 3.5
    oft        rotations on the input side alone, of fewer parameters: what PEFT's OFT with blocks of 8 does, by the
               exact Cayley map
    peft-oft16, peft-oft32
               PEFT's own OFT as it comes (the Neumann series), with blocks of 16 and of 32: fewer and more parameters
               than `so8`, for none of its sizes has as many
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from peft import OFTConfig, inject_adapter_in_model
from torch import nn

from benchmarks import toy
from so8t.so8.adapter import Adapters
from so8t.train.config import Train
from so8t.train.learner import Learner
from so8t.train.policy import Policy

TARGETS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
METHODS: dict[str, dict[str, Any]] = {
    "so8": {"output": True, "input": True, "rank": 0},
    "so8+lora": {"output": True, "input": True, "rank": 2},
    "lora": {"output": False, "rank": 4},
    "oft": {"output": False, "input": True, "rank": 0},
    "peft-oft16": {"output": False, "input": True, "rank": 0},
    "peft-oft32": {"output": False, "input": True, "rank": 0},
}
PEFT_BLOCK = {"peft-oft16": 16, "peft-oft32": 32}
HIDDEN, LAYERS, PROMPT, REPLY, LAST = 64, 4, 4, 4, 5
# Two-sided 95 % of Student's t by degrees of freedom (scipy.stats.t.ppf(0.975, n)).
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def config_of(method: str, seed: int, updates: int, batch: int, rate: float) -> Train:
    """One run."""
    return Train.model_validate({
        "seed": seed,
        "adapter": {
            "targets": TARGETS, "lora_scale": 1.0, "apply_to": "weights", "base_dtype": "float32",
            "gradient_checkpointing": False, **METHODS[method],
        },
        "vision": {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 32, "patch_size": 16},
        "ppo": {
            "updates": updates, "batch": batch, "epochs": 4, "minibatch": batch // 2, "micro_batch": batch // 2,
            "image_share": 0, "max_new_tokens": REPLY, "learning_rate": rate, "kl_coefficient": 0, "kl_stop": 0,
            "kl_adaptive": False, "missing_end_penalty": 0, "evaluation_every": 0, "evaluation_prompts": 1,
            "anchor": {"prompts": 0},
        },
    })  # fmt: skip


class PeftText(Adapters):
    """PEFT's OFT in the place of our adapters; the rows of the tags stay ours."""

    def __init__(self, ours: Adapters, language_model: nn.Module, block: int) -> None:
        super().__init__(ours.setting)
        self.embedding, self.head = ours.embedding, ours.head
        for name, linear in ours.linears.items():
            parent, _, last = name.rpartition(".")
            plain = nn.Linear(linear.in_features, linear.out_features, bias=False)
            plain.weight = nn.Parameter(linear.weight, requires_grad=False)
            setattr(language_model.get_submodule(parent.removeprefix("model.")), last, plain)
        wanted = [target.rpartition(".")[2] for target in TARGETS]
        inject_adapter_in_model(OFTConfig(oft_block_size=block, target_modules=wanted), language_model)
        self.own = {name: p for name, p in language_model.named_parameters() if ".oft_R." in name}

    def parameters(self) -> dict[str, nn.Parameter]:
        """PEFT's, and the rows."""
        return {**self.own, **super().parameters()}


def learner_of(method: str, config: Train, base: Path) -> Learner:
    """The learner with the method's adapters."""
    learner = toy.learner_on(config, base)
    if method in PEFT_BLOCK:
        learner.text = PeftText(learner.text, learner.model.model.language_model, PEFT_BLOCK[method])
    return learner


def make_base(folder: Path) -> Path:
    """The base whose logits a policy can move."""
    toy.make_base(folder / "base", HIDDEN, LAYERS)
    return folder / "base"


def rewards(method: str, config: Train, base: Path) -> tuple[list[float], int]:
    """Mean reward of each rollout, and how many adapter parameters were trained."""
    learner = learner_of(method, config, base)
    learner.model.lm_head.weight.data *= 10
    policy = Policy(learner, config, toy.samples(256, PROMPT), [])
    policy.judgement = toy.even_share
    torch.manual_seed(config.seed)
    policy.begin()
    told = [policy.step(position)() for position in range(policy.steps)]
    count = sum(p.numel() for name, p in policy.optimizer.named.items() if not name.startswith("value_head"))
    return [row["reward"] for row in told if "reward" in row], count


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval over the seeds."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = T_95[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):.3f} +- {half:.3f}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=120)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{given.updates} updates of {given.batch}x{REPLY} tokens, rate {given.rate}; reward .5 by chance, 1 at the ceiling"
    )
    print(f"{'method':10}{'parameters':>11}{'first':>8}   last {LAST} updates, by seed (mean +- 95 %)   CPU-s")
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder))
        for method in given.methods:
            started, firsts, lasts, count = time.process_time(), [], [], 0
            for seed in given.seeds:
                curve, count = rewards(method, config_of(method, seed, given.updates, given.batch, given.rate), base)
                firsts.append(curve[0])
                lasts.append(mean(curve[-LAST:]))
            shown = " ".join(f"{value:.3f}" for value in lasts)
            seconds = time.process_time() - started
            print(
                f"{method:10}{count:11}{mean(firsts):8.3f}   {shown}   ({interval(lasts)})   {seconds:.0f}", flush=True
            )


if __name__ == "__main__":
    main()
