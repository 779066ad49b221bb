"""Replies as no trained model should write them. What counts as thinking is written in circled digits, and only that.

So a single circled digit in whatever leaves is a leak, wherever the reply was cut.
"""

import random
from collections.abc import Iterator

from so8t.labels import LABEL_TOKENS
from so8t.thinking import PARTS, TAGS

THINKING = "①②③④⑤⑥⑦⑧⑨⑩"
BROKEN = (
    "<final", "final>", "</final", "<fin", "<", "</", "< final>", "<final >", "<FINAL>", "<final/>", "</ final>", "<<final>",
    "<think-", "<think-task", "think-task>", "<think_task>", "＜final＞", "<fi\u200bnal>", "&lt;final&gt;", "<|", "<|allow", "<|end|>",
)  # fmt: skip
WORDS = (
    "fine",
    "yes",
    "はい",
    "大丈夫です",
    "7",
    " ",
    "\n",
    "  ",
    "a<b",
    "x>y",
    "😀",
    '"',
    "\\",
    "data: ",
    "\n\n",
    "\r\n",
)


def thought(draw: random.Random) -> str:
    """Some thinking, now and then with half a tag in it."""
    return "".join(
        draw.choice(BROKEN) if draw.random() < 0.1 else "".join(draw.choices(THINKING, k=draw.randint(1, 9)))
        for _ in range(draw.randint(1, 4))
    )


def spoken(draw: random.Random) -> str:
    """A final without thinking in it, now and then with half a tag."""
    return "".join(draw.choice(BROKEN if draw.random() < 0.2 else WORDS) for _ in range(draw.randint(0, 8)))


def well_formed(draw: random.Random) -> list[str]:
    """A reply as it should be, in tokens: a tag, its text, its closer, and so on."""
    reply = []
    for part in PARTS:
        text = spoken(draw) if part == "final" else thought(draw)
        if part == "think-safety":
            text = draw.choice((*LABEL_TOKENS, *LABEL_TOKENS, "<|unknown|>", "", "".join(LABEL_TOKENS[:2]))) + text
        reply += [f"<{part}>", text, f"</{part}>", draw.choice(("", "", "\n", " "))]
    return reply


def _tagged(draw: random.Random) -> str:
    return f"{draw.choice(TAGS)}{thought(draw)}{draw.choice(TAGS)}"


def spoil(draw: random.Random, reply: list[str]) -> list[str]:
    """Leave out, double, exchange, nest, cut short or put thinking where none may stand."""
    reply, at = list(reply), draw.randrange(len(reply))
    tags = [index for index, piece in enumerate(reply) if piece in TAGS]
    match draw.randrange(8):
        case 0:
            del reply[draw.choice(tags or [at])]
        case 1:
            reply.insert(at, draw.choice(TAGS))
        case 2:
            # Only tags change places: thinking right behind `<final>` would be a final.
            one, other = draw.choice(tags or [at]), draw.choice(tags or [at])
            reply[one], reply[other] = reply[other], reply[one]
        case 3:
            # Thinking within tags, in the final too.
            reply.insert(at, _tagged(draw))
        case 4:
            reply = reply[:at]
        case 5:
            text = "".join(reply)
            reply = [text[: draw.randrange(len(text) + 1)]]
        case 6:
            reply = [*reply, thought(draw), *well_formed(draw)]
        case _:
            reply = [thought(draw), *reply] if draw.random() < 0.5 else [*reply, thought(draw)]
    return reply or [""]


def replies(seed: int, count: int) -> Iterator[str]:
    """`count` replies: a quarter as they should be, the rest spoilt once to three times."""
    draw = random.Random(seed)  # noqa: S311
    for _ in range(count):
        reply = well_formed(draw)
        for _ in range(draw.choice((0, 1, 1, 1, 2, 2, 3, 3))):
            reply = spoil(draw, reply)
        yield "".join(reply)


def cut(draw: random.Random, text: str) -> list[str]:
    """The text in pieces of any length; now and then one character each, or all in one."""
    most = draw.choice((1, 2, 3, 8, 40, len(text) + 1))
    pieces, at = [""], 0
    while at < len(text):
        step = draw.randint(1, most)
        pieces.append(text[at : at + step])
        at += step
    return pieces


def leaks(data: bytes) -> bool:
    """Whether a thinking character is in the bytes, as UTF-8 or as a JSON escape."""
    return any(sign.encode() in data or f"\\u{ord(sign):04x}".encode() in data.lower() for sign in THINKING)
