"""A small random Phi-3 as the demo makes it, prompts, and a reward with a known ceiling, for benchmarks of PPO.

The reward is the share of tokens with an even id: half of it comes by chance, and 1 is the ceiling.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from so8t.collect.basemodel import demo
from so8t.collect.config import DemoBase
from so8t.config import Machine
from so8t.models import write_thinking_tokenizer
from so8t.progress import Progress
from so8t.records import Record
from so8t.thinking import IMAGE_TOKEN
from so8t.train.config import Train
from so8t.train.data import Sample
from so8t.train.generation import Replies
from so8t.train.learner import Learner, build
from so8t.train.reward import Score

# Ids of ordinary pieces: prompts hold neither control tokens nor bytes.
FIRST_PIECE, LAST_PIECE = 300, 1900


def make_base(folder: Path, hidden: int, layers: int) -> None:
    """The demo's base, not pretrained to speak of."""
    quiet = Progress("base", Machine(threads=1), folder)
    demo.make(DemoBase(kind="demo", steps=1, batch=1, length=16, hidden=hidden, layers=layers), folder, quiet)


def prompts(count: int, length: int) -> list[list[int]]:
    """Random ids, the same for everybody."""
    generator = torch.Generator().manual_seed(0)
    drawn: list[list[int]] = torch.randint(FIRST_PIECE, LAST_PIECE, (count, length), generator=generator).tolist()
    return drawn


def samples(count: int, length: int) -> list[Sample]:
    """The same as PPO's phase takes them."""
    return [
        Sample(Record(f"{number:04}", "text", "en", "", label=3), ids, [], [])
        for number, ids in enumerate(prompts(count, length))
    ]


def learner_on(config: Train, base: Path) -> Learner:
    """The learner; its tokenizer lies beside the base afterwards. No reply ends before its longest length."""
    tokenizer = base.parent / "tokenizer"
    token_ids = write_thinking_tokenizer(base, tokenizer)
    learner = build(config, base, tokenizer, token_ids, "cpu")
    # The id of the image marker: no text has it, and a random model draws it as rarely as any other.
    learner.stop = [token_ids[IMAGE_TOKEN]]
    return learner


def even_share(_: Sequence[Sample], replies: Replies) -> list[Score]:
    """PPO's reward."""
    tokens, mask = replies.ids[:, replies.context :], replies.reply_mask
    shares = ((tokens % 2 == 0) * mask).sum(1) / mask.sum(1)
    return [Score(share, {"even": share}) for share in shares.tolist()]
