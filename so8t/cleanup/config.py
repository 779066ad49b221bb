"""Config of cleanup."""

from so8t.section import Section


class Cleanup(Section):
    """What is kept."""
