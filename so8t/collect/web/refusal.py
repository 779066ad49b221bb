"""Why a page does not come."""


class Refused(Exception):
    """We do not want it, and never will: the reason is kept beside the URL."""


class Unreachable(Exception):
    """It did not come this time."""
