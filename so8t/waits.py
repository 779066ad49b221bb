"""How long a server asks to be left alone."""

import time
from email.utils import parsedate_to_datetime


def asked_s(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, a number or a date (RFC 9110, section 10.2.3); None without a usable one."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
