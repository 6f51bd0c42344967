"""What the chain goes by: the settings it may see, as one frozen value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigurationError
from pipeline.model.retention import days, parse_classes
from pipeline.settings import Settings
from pipeline.workers.kinds import parse_gaps
from pipeline.workers.redact.rulefile import load
from pipeline.workers.redact.rules import RuleBook


@dataclass(frozen=True)
class Rules:
    """All times in milliseconds. Changing one changes what a repeated batch gives: drain the workers first."""

    epoch: int = 1
    mousemove_gap_ms: int = 50
    scroll_gap_ms: int = 100
    other_gaps_ms: Mapping[str, int] = field(default_factory=dict)
    """By name as `kinds.parse_gaps` gives them."""
    session_bytes_per_s: int = 1_000_000
    session_burst_bytes: int = 64 << 20
    """A session that sends more, sustained and over a burst, is hot; either 0: none ever is."""
    session_gap_ms: int = 1_800_000
    session_length_ms: int = 86_400_000
    session_grace_ms: int = 86_400_000
    session_memory_ms: int = 2_592_000_000
    event_age_max_ms: int = 604_800_000
    event_ahead_max_ms: int = 86_400_000
    retention: str = "30d"
    retentions: Mapping[str, str] = field(default_factory=dict)
    """Classes of tenants that have another one."""
    clean_bytes_max: int = 16 << 20
    """The largest record that replay.clean takes; what redaction lengthened beyond is a dead letter."""
    redaction: RuleBook = field(default_factory=RuleBook)

    def retention_of(self, tenant: str) -> str:
        return self.retentions.get(tenant, self.retention)


def rules(settings: Settings) -> Rules:
    """Raises ConfigurationError where the retention class is none, a limit is negative, a type that is never throttled has a
    gap, or a redaction rule does not compile."""
    days(settings.retention_class)
    retentions = parse_classes(settings.retention_classes)
    for name in ("mousemove_gap_ms", "scroll_gap_ms", "session_bytes_per_s", "session_burst_bytes"):
        if getattr(settings, name) < 0:
            raise ConfigurationError(f"REPLAY_{name.upper()} must not be negative; 0 is no limit")
    return Rules(
        epoch=settings.epoch,
        mousemove_gap_ms=settings.mousemove_gap_ms,
        scroll_gap_ms=settings.scroll_gap_ms,
        other_gaps_ms=parse_gaps(settings.throttle),
        session_bytes_per_s=settings.session_bytes_per_s,
        session_burst_bytes=settings.session_burst_bytes,
        session_gap_ms=settings.session_gap_ms,
        session_length_ms=settings.session_length_ms,
        session_grace_ms=settings.session_grace_ms,
        session_memory_ms=settings.session_memory_ms,
        event_age_max_ms=settings.event_age_max_ms,
        event_ahead_max_ms=settings.event_ahead_max_ms,
        retention=settings.retention_class,
        retentions=retentions,
        clean_bytes_max=settings.clean_bytes_max,
        redaction=_redaction(settings),
    )


def _redaction(settings: Settings) -> RuleBook:
    if settings.redact_rules is None:
        return RuleBook()
    return load(settings.redact_rules, lambda: hash_key(settings.keys.with_name("redact.key")))


def hash_key(path: Path) -> bytes:
    """The random key that tenants' keys for the method `hash` are derived from; made once, mode 0600. Workers on several
    machines must be given the same file, else equal values do not join."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(os.urandom(32))
    try:
        os.link(own, path)  # whole or not at all: another worker may make it at the same moment
    except FileExistsError:
        pass
    finally:
        own.unlink()
    return path.read_bytes()
