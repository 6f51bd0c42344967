"""What the chain goes by: the settings it may see, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.retention import days
from pipeline.settings import Settings
from pipeline.workers.redact.rules import BUILT_IN, Redaction


@dataclass(frozen=True)
class Rules:
    """All times in milliseconds. Changing one changes what a repeated batch gives: drain the workers first."""

    epoch: int = 1
    mousemove_gap_ms: int = 50
    scroll_gap_ms: int = 100
    session_gap_ms: int = 1_800_000
    session_length_ms: int = 86_400_000
    session_grace_ms: int = 86_400_000
    retention: str = "30d"
    clean_bytes_max: int = 16 << 20
    """The largest record that replay.clean takes; what redaction lengthened beyond is a dead letter."""
    redaction: Redaction = BUILT_IN


def rules(settings: Settings) -> Rules:
    """Raises ConfigurationError where the retention class is none."""
    days(settings.retention_class)
    return Rules(
        epoch=settings.epoch,
        mousemove_gap_ms=settings.mousemove_gap_ms,
        scroll_gap_ms=settings.scroll_gap_ms,
        session_gap_ms=settings.session_gap_ms,
        session_length_ms=settings.session_length_ms,
        session_grace_ms=settings.session_grace_ms,
        retention=settings.retention_class,
        clean_bytes_max=settings.clean_bytes_max,
    )
