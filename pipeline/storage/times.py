"""Times as the tables hold them."""

from __future__ import annotations

TS_MIN_MS, TS_MAX_MS = 0, 7_258_118_399_999
"""DateTime64(3) of ClickHouse holds 1900–2299; a timestamp outside 1970–2199 is stored at the nearer end."""


def within_datetime(ms: int) -> int:
    """The nearest time that the timestamp columns hold."""
    return min(max(ms, TS_MIN_MS), TS_MAX_MS)
