"""Rows of the table `blocks`, as an object's manifest gives them. Pure."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.model.blocks import Manifest
from pipeline.storage.times import within_datetime


class IndexRow(NamedTuple):
    """One row, times in ms since 1970 as the table holds them, `expires_at` in seconds."""

    tenant: str
    session_id: str
    part: str
    window_id: str
    object: str
    n: int
    byte_start: int
    byte_length: int
    first_ts: int
    last_ts: int
    event_count: int
    sha256: str
    epoch: int
    source_partition: int
    source_offset: int
    source_last_offset: int
    expires_at: int


def rows_of(manifest: Manifest) -> list[IndexRow]:
    """The index rows of one object."""
    return [
        IndexRow(
            tenant=block.tenant,
            session_id=block.session_id,
            part=block.part,
            window_id=block.window_id,
            object=manifest.object,
            n=block.n,
            byte_start=block.byte_start,
            byte_length=block.byte_length,
            first_ts=within_datetime(block.first_ts),
            last_ts=within_datetime(block.last_ts),
            event_count=block.event_count,
            sha256=block.sha256,
            epoch=manifest.epoch,
            source_partition=manifest.source_partition,
            source_offset=block.source_offset,
            source_last_offset=block.source_last_offset,
            expires_at=manifest.expires_at,
        )
        for block in manifest.blocks
    ]
