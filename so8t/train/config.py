"""Config of train."""

from so8t.section import Section


class Train(Section):
    """Adapters, tower, warm-up, four-class head, PPO."""

    seed: int = 0
