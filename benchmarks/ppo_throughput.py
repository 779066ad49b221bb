"""Updates and generated tokens per CPU second, and memory: our PPO against TRL 1.12's PPOTrainer, in one run.

    python -m benchmarks.ppo_throughput [--updates 8] [--rounds 2] [--hidden 256] [--layers 4]

TRL 1.12.0 is the last with a PPO; beside the project's own packages:
`pip install --no-deps trl==1.12.0 && pip install datasets peft accelerate`.

Both train low-rank adapters of rank 8 on the same four linears of the same small random Phi-3, in fp32 on one thread:
8 prompts of 24 tokens, 24 new tokens each, 4 epochs of one minibatch, the same clip ranges, discount and KL price, the
same reward (share of even token ids, which costs nothing). Each side is a process of its own, and the sides take turns.

Not equal, because TRL has it so: its critic is a second backbone, trained in full, where ours is a head on the shared
trunk; its old log-probabilities are generation's own scores, where ours come from a further forward pass.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import toy
from benchmarks.even_reward import EvenReward

BATCH, PROMPT, REPLY, EPOCHS, RANK, PASSED_OVER = 8, 24, 24, 4, 8, 2
TARGETS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")


def ours(base: Path, updates: int) -> list[float]:
    """CPU seconds of each update."""
    from so8t.train.config import Train
    from so8t.train.policy import Policy

    config = Train.model_validate({
        "adapter": {
            "targets": TARGETS, "output": False, "rank": RANK, "lora_scale": 2.0, "apply_to": "activations",
            "base_dtype": "float32", "gradient_checkpointing": False,
        },
        "vision": {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 32, "patch_size": 16},
        "ppo": {
            "updates": updates, "batch": BATCH, "epochs": EPOCHS, "minibatch": BATCH, "micro_batch": BATCH,
            "image_share": 0, "max_new_tokens": REPLY, "learning_rate": 1e-3, "kl_adaptive": False, "kl_stop": 0,
            "evaluation_every": 0, "evaluation_prompts": 1, "anchor": {"prompts": 0},
        },
    })  # fmt: skip
    policy = Policy(toy.learner_on(config, base), config, toy.samples(64, PROMPT), [])
    policy.judgement = toy.even_share
    policy.begin()
    seconds = []
    for update in range(updates):
        started = time.process_time()
        for within in range(EPOCHS):
            policy.step(update * EPOCHS + within)()
        seconds.append(time.process_time() - started)
    return seconds


def trl(base: Path, updates: int) -> list[float]:
    """The same by TRL."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, Phi3ForCausalLM, Phi3ForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    seconds, started = [], [0.0]

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.process_time() - started[0])
            started[0] = time.process_time()

    def loaded(kind: Any, **more: Any) -> Any:
        return kind.from_pretrained(base, dtype=torch.float32, attn_implementation="eager", **more)

    tokenizer = AutoTokenizer.from_pretrained(base)
    with tempfile.TemporaryDirectory() as out:
        settings = PPOConfig(
            output_dir=out, per_device_train_batch_size=BATCH, gradient_accumulation_steps=1, num_mini_batches=1,
            num_ppo_epochs=EPOCHS, total_episodes=updates * BATCH, response_length=REPLY, learning_rate=1e-3,
            local_rollout_forward_batch_size=BATCH, kl_coef=0.05, vf_coef=0.1, cliprange=0.2, cliprange_value=0.2,
            gamma=1.0, lam=0.95, temperature=1.0, num_sample_generations=0, report_to="none", save_strategy="no",
            logging_steps=1000, use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        )  # fmt: skip
        rows = Dataset.from_dict({"input_ids": toy.prompts(64, PROMPT)})
        trainer = PPOTrainer(
            args=settings, processing_class=tokenizer, model=loaded(Phi3ForCausalLM), ref_model=None,
            reward_model=EvenReward(PROMPT), train_dataset=rows, eval_dataset=rows.select(range(BATCH)),
            value_model=loaded(Phi3ForSequenceClassification, num_labels=1), callbacks=[Clock()],
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=[t.split(".")[1] for t in TARGETS]),
        )  # fmt: skip
        started[0] = time.process_time()
        trainer.train()
    return seconds


def measure(side: str, base: Path, updates: int) -> dict[str, float]:
    """One side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ppo_throughput", "--side", side, "--base", base, "--updates", updates]
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, encoding="utf-8", check=True)  # noqa: S603 - ourselves
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--side", choices=["ours", "trl"])
    parser.add_argument("--base", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.side:
        seconds = {"ours": ours, "trl": trl}[given.side](given.base, given.updates)
        # Kilobytes on Linux.
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"cpu_s": median(seconds[PASSED_OVER:]), "rss_bytes": memory, "n": len(seconds)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        toy.make_base(base, given.hidden, given.layers)
        found: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
        for _ in range(given.rounds):
            for side, rounds in found.items():
                rounds.append(measure(side, base, given.updates))
    cpu_s = {side: median(one["cpu_s"] for one in rounds) for side, rounds in found.items()}
    rss = {side: median(one["rss_bytes"] for one in rounds) for side, rounds in found.items()}
    print(f"{'':6}{'updates/CPU-s':>15}{'tokens/CPU-s':>15}{'peak MB':>10}   rounds, CPU-s an update")
    for side in ("ours", "trl"):
        shown = " ".join(f"{one['cpu_s']:.3f}" for one in found[side])
        print(f"{side:6}{1 / cpu_s[side]:15.2f}{BATCH * REPLY / cpu_s[side]:15.0f}{rss[side] / 1e6:10.0f}   {shown}")
    print(f"speed ours/trl {cpu_s['trl'] / cpu_s['ours']:.2f} (bar: 2.5 or more; TRL trains a second backbone)")
    print(f"memory ours/trl {rss['ours'] / rss['trl']:.2f} (bar: 0.8 or less)")


if __name__ == "__main__":
    main()
