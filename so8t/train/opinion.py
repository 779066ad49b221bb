"""What the four-class model thinks of the prompts: asked once, before the policy is in memory.

The reward's term reads prompts only, and these are known beforehand. So the second model is gone before the first
optimizer step, and a resumed training asks for the same rows in the same batches, which gives the same numbers.
"""

from collections.abc import Iterable

from so8t import records
from so8t.classifier import Classifier
from so8t.step import Inputs
from so8t.train.reward import Classify


def ask(inputs: Inputs, device: str) -> Classify | None:
    """Calibrated probabilities of each prompt of the training and validation rows; None where there is no such model."""
    if "classifier" not in inputs:
        return None
    folder = inputs["data"].path
    rows = (row for split in ("train", "validation") for row in records.iterate(folder / f"{split}.parquet"))
    prompts = sorted({row.prompt for row in rows})
    classifier = Classifier.load(inputs["classifier"].path, inputs["base"].path, device)
    known = dict(zip(prompts, classifier.probabilities(prompts).tolist(), strict=True))

    def classify(wanted: list[str]) -> Iterable[Iterable[float]]:
        return [known[prompt] for prompt in wanted]

    return classify
