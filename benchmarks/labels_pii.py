"""Personal data: what our masks and HojiChar's find, and how fast, on the same documents in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.labels_pii [--documents 2000]      (needs `pip install --no-deps hojichar`)

Documents of about 1,000 characters made from the harmless forms of tests/preprocess/personal.py, one in four with a
personal one planted; a warm-up, then CPU seconds, the two in turns. Finds are judged on both lists: a form counts as
found when no digit and no name or address of it is left, and as a false alarm when a harmless text is changed.
"""

import argparse
import json
import random
import time
from collections.abc import Callable

from so8t.preprocess.pii import fold, mask
from tests.preprocess.personal import HARMLESS, PERSONAL, raw, secrets

PROSE = "雨の日には傘を持って出かけ、帰りに本屋へ寄るのが習いである。駅前の道は広く、並木の下を人が行き来していた。"
CHARACTERS, ROUNDS = 1000, 3
Mask = Callable[[str], str]


def documents(count: int) -> list[str]:
    """Prose with harmless numbers in it, and a planted form in each fourth."""
    rng = random.Random(0)  # noqa: S311
    made = []
    for number in range(count):
        parts = [PROSE] * (CHARACTERS // len(PROSE)) + rng.sample(HARMLESS, 2)
        parts += [raw(rng.choice(PERSONAL))] if number % 4 == 0 else []
        rng.shuffle(parts)
        made.append("".join(parts))
    return made


def gone(text: str, masked: str) -> bool:
    """Whether nothing of the secrets can be read in the masked text."""
    left = fold(masked)
    parts = [part for secret in secrets(text) for part in fold(secret).replace("@", ".").replace("-", ".").split(".")]
    return not [part for part in parts if len(part) > 1 and part in left]


def seconds(one: Mask, texts: list[str]) -> float:
    """CPU time of one pass."""
    start = time.process_time()
    for text in texts:
        one(text)
    return time.process_time() - start


def peer() -> Mask:
    """HojiChar's mask of telephone numbers and mail addresses."""
    from hojichar import Document
    from hojichar.filters.document_filters import MaskPersonalInformation

    step = MaskPersonalInformation()
    return lambda text: str(step.apply(Document(text)).text)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    texts = documents(parser.parse_args().documents)
    masks: dict[str, Mask] = {"ours": lambda text: mask(text)[0], "hojichar": peer()}
    took = {name: min(seconds(one, texts) for _ in range(ROUNDS)) for name, one in masks.items()}
    for name, one in masks.items():
        found = sum(gone(text, one(raw(text))) for text in PERSONAL)
        wrong = sum(one(text) != text for text in HARMLESS)
        print(json.dumps({
            "mask": name, "found": f"{found}/{len(PERSONAL)}", "false_alarms": f"{wrong}/{len(HARMLESS)}",
            "documents_per_s": round(len(texts) / took[name]),
        }))  # fmt: skip
    print(json.dumps({"ours_over_hojichar": round(took["hojichar"] / took["ours"], 2)}))


if __name__ == "__main__":
    main()
