"""Data that comes with the package: digits, tones, prompts and plain text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from so8t.collect.config import DemoSource
    from so8t.collect.gathered import Gathered


def gather(config: "DemoSource") -> "Gathered":
    """The rows of one of the package's own sets."""
    if config.set == "digits":
        from so8t.collect.demo import digits

        return digits.gather(config.name)
    if config.set == "tones":
        from so8t.collect.demo import tones

        return tones.gather(config.name, config.count, config.seed)
    from so8t.collect.demo import prompts

    return prompts.gather(config.name)
