"""The table `blocks`, the index of the replay bytes: one row a live block of an object.

Rows come in through one guarded insert, whoever brings them (the sink, `replay reindex`): a block that is there already,
or whose session was erased at or above its offset, stays out. So repeats and several writers at once do no harm.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.model.blocks import Manifest
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.index_rows import IndexRow, rows_of
from pipeline.storage.staging import Stage

PAGE_ROWS = 50_000
"""Rows in one answer; a little more where the last object ends later. Some 600 bytes each here."""


def _guard(objects: str, erasures: str) -> str:
    """What may go in from the stage; `objects` and `erasures` narrow what of the two tables must be looked at."""
    return f"""
    (object, n) NOT IN (SELECT object, n FROM {{db}}.blocks WHERE {objects})
    AND (object, n) NOT IN (
        SELECT s.object, s.n FROM {{stage}} AS s
        INNER JOIN (SELECT tenant, session_id, epoch, source_partition, source_offset AS up_to FROM {{db}}.erasures
                    WHERE {erasures}) AS e
            ON e.tenant = s.tenant AND e.session_id = s.session_id AND e.epoch = s.epoch
                AND e.source_partition = s.source_partition
        WHERE s.source_offset <= e.up_to)
    """


_OF_ONE = _guard(
    "object = {object:String}",
    "epoch = {epoch:UInt32} AND source_partition = {partition:UInt32} AND source_offset >= {first:UInt64}",
)
_OF_MANY = _guard("object IN (SELECT object FROM {stage})", "source_offset >= (SELECT min(source_offset) FROM {stage})")

_TS = pa.timestamp("ms", "UTC")
_BLOCKS = pa.schema(
    [
        ("tenant", pa.string()),
        ("session_id", pa.string()),
        ("part", pa.string()),
        ("window_id", pa.string()),
        ("object", pa.string()),
        ("n", pa.uint32()),
        ("byte_start", pa.uint64()),
        ("byte_length", pa.uint64()),
        ("first_ts", _TS),
        ("last_ts", _TS),
        ("event_count", pa.uint32()),
        ("sha256", pa.string()),
        ("epoch", pa.uint32()),
        ("source_partition", pa.uint32()),
        ("source_offset", pa.uint64()),
        ("source_last_offset", pa.uint64()),
        ("expires_at", pa.uint32()),
    ]
)


_SELECT = """
    SELECT tenant, session_id, part, window_id, object, n, byte_start, byte_length, toUnixTimestamp64Milli(first_ts),
        toUnixTimestamp64Milli(last_ts), event_count, toString(sha256), epoch, source_partition, source_offset,
        source_last_offset, toUnixTimestamp(expires_at)
    FROM {db}.blocks
"""


def indexed(warehouse: ClickHouse, *, page_rows: int = PAGE_ROWS) -> Iterator[IndexRow]:
    """Every row by object and n, read in pages of whole objects: what is held does not grow with the table."""
    after = ""
    while True:
        page = warehouse.rows(
            _SELECT + "WHERE object > {after:String} ORDER BY object LIMIT {limit:UInt32} WITH TIES",
            after=after,
            limit=page_rows,
        )
        yield from sorted((IndexRow(*row) for row in page), key=lambda row: (row.object, row.n))
        if len(page) < page_rows:
            return
        after = max(row[4] for row in page)


def indexed_of(warehouse: ClickHouse, key: str) -> list[IndexRow]:
    """The rows of one object as they are now, by n."""
    found = warehouse.rows(_SELECT + "WHERE object = {object:String} ORDER BY n", object=key)
    return [IndexRow(*row) for row in found]


class BlockIndex:
    """The guarded insert, with a staging table of its own. For one thread at a time."""

    def __init__(self, warehouse: ClickHouse) -> None:
        self._stage = Stage(warehouse, "blocks")

    def insert(self, manifest: Manifest) -> None:
        """Indexes an object's blocks. Raises RetryableError where it is unknown whether they are in: insert them again."""
        self._stage.insert(_table([manifest]), token=_token(manifest), guard=_OF_ONE, **_guarded(manifest))

    def complete(self, manifest: Manifest) -> int:
        """As `insert`, and makes sure that rows which were there once and were lost come back: how many were missing."""
        return self._stage.complete(_table([manifest]), token=_token(manifest), guard=_OF_ONE, **_guarded(manifest))

    def complete_alone(self, manifests: list[Manifest]) -> int:
        """As `complete`, for many objects in one insert. No token then keeps another writer of the same objects out: it
        is for times when there is none."""
        return self._stage.complete(_table(manifests), token=f"alone-{secrets.token_hex(16)}", guard=_OF_MANY)

    def close(self) -> None:
        self._stage.drop()


def _table(manifests: list[Manifest]) -> pa.Table:
    return pa.Table.from_pylist([row._asdict() for manifest in manifests for row in rows_of(manifest)], _BLOCKS)


def _token(manifest: Manifest) -> str:
    """The same for all who insert this object: of two at once, the window of tokens keeps the second out."""
    return f"blocks-{manifest.object}"


def _guarded(manifest: Manifest) -> dict[str, Any]:
    return {
        "object": manifest.object,
        "epoch": manifest.epoch,
        "partition": manifest.source_partition,
        "first": manifest.first,
    }
