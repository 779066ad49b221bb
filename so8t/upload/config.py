"""Config of upload."""

from so8t.section import Section


class Upload(Section):
    """Where the result is published."""
