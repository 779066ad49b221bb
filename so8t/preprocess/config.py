"""Config of preprocess."""

from so8t.section import Section


class Preprocess(Section):
    """Cleaning, labelling and splitting."""

    seed: int = 0
