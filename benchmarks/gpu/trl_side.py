"""Updates of TRL 1.12's PPOTrainer at the same base, batch and lengths: what phi35.py compares with.

The policy carries low-rank adapters of rank 16 on the same four linears of a bf16 base; TRL's critic is a second
backbone, trained in full, where ours is a head on the shared trunk. The reward is the share of even token ids, which
costs nothing. TRL 1.12.0 is the last with a PPO: `pip install --no-deps trl==1.12.0 && pip install datasets peft`.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.even_reward import EvenReward

PROMPT, RANK, UPDATES, EPOCHS = 192, 16, 2, 2
TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def updates(base: Path, batch: int, reply: int, device: str) -> list[float]:
    """Seconds of each."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, Phi3ForCausalLM, Phi3ForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.monotonic())

    def loaded(kind: Any, **more: Any) -> Any:
        return kind.from_pretrained(base, dtype=torch.bfloat16, attn_implementation="eager", **more)

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 1000, (4 * batch, PROMPT), generator=generator).tolist()
    rows = Dataset.from_dict({"input_ids": ids})
    with tempfile.TemporaryDirectory() as out:
        settings = PPOConfig(
            output_dir=out, per_device_train_batch_size=1, gradient_accumulation_steps=batch, num_mini_batches=1,
            num_ppo_epochs=EPOCHS, total_episodes=UPDATES * batch, response_length=reply, learning_rate=5e-5,
            local_rollout_forward_batch_size=batch, num_sample_generations=0, report_to="none", save_strategy="no",
            logging_steps=1000, use_cpu=device == "cpu", bf16=False, gradient_checkpointing=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = PPOTrainer(
            args=settings, processing_class=AutoTokenizer.from_pretrained(base), model=loaded(Phi3ForCausalLM),
            ref_model=None, reward_model=EvenReward(PROMPT), train_dataset=rows, eval_dataset=rows.select(range(batch)),
            value_model=loaded(Phi3ForSequenceClassification, num_labels=1), callbacks=[Clock()],
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS),
        )  # fmt: skip
        began = time.monotonic()
        trainer.train()
    return [end - start for start, end in zip([began, *ends], ends, strict=False)]


def main() -> None:
    """One line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--reply", type=int, default=256)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    try:
        seconds = updates(options.base, options.batch, options.reply, options.device)
    except torch.OutOfMemoryError as error:
        sys.stdout.write(json.dumps({"skipped": f"out of memory: {str(error).splitlines()[0]}"}) + "\n")
        return
    tokens = options.batch * (PROMPT + options.reply)
    peak = torch.cuda.max_memory_allocated() if options.device == "cuda" else 0
    sys.stdout.write(
        json.dumps({"update_s": seconds[-1], "tokens_per_s": tokens / seconds[-1], "peak_bytes": peak}) + "\n"
    )


if __name__ == "__main__":
    main()
