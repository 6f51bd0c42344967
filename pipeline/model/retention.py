"""Retention classes: `<days>d` or `<years>y`. A class is a prefix of the object's key and the source of `expires_at`."""

from __future__ import annotations

import re

from pipeline.errors import ConfigurationError
from pipeline.model.batches import is_id

DAY_MS = 86_400_000
EXPIRES_MAX_S = 2**32 - 1
"""The end of what four bytes of seconds hold, in 2106: who keeps longer keeps until then."""

PINNED = "pinned"
"""Where copies of pinned sessions lie: a prefix like a class, which never expires."""

_CLASS = re.compile(r"([1-9][0-9]{0,3})([dy])", re.ASCII)


def days(retention: str) -> int:
    """Days that a class stands for; a year is 365. Raises ConfigurationError."""
    found = _CLASS.fullmatch(retention)
    if found is None:
        raise ConfigurationError(f"{retention!r} is no retention class: 30d and 1y are")
    return int(found[1]) * (365 if found[2] == "y" else 1)


def parse_classes(text: str) -> dict[str, str]:
    """`acme=1y,rival=90d` → class by tenant. Raises ConfigurationError where a class is none, or a tenant is named twice."""
    found: dict[str, str] = {}
    for item in filter(None, (each.strip() for each in text.split(","))):
        tenant, sign, retention = (each.strip() for each in item.partition("="))
        if not sign or not is_id(tenant):
            raise ConfigurationError(
                "REPLAY_RETENTION_CLASSES: write <tenant>=<class> with commas between, acme=1y,rival=90d"
            )
        if tenant in found:
            raise ConfigurationError(f"REPLAY_RETENTION_CLASSES names {tenant} twice")
        days(retention)
        found[tenant] = retention
    return found


def expires_at_s(retention: str, source_at_ms: int) -> int:
    """Seconds since 1970 when what was taken in at `source_at_ms` goes: the end of its last day, so days share parts.

    Within 0..EXPIRES_MAX_S, whatever the class and the clock say. Raises ConfigurationError as `days` does.
    """
    end = (source_at_ms // DAY_MS + days(retention) + 1) * (DAY_MS // 1000)
    return min(max(end, 0), EXPIRES_MAX_S)
