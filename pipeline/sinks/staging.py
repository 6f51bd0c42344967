"""Guarded inserts: a block goes into a staging table, and from there what still may go in, in one INSERT … SELECT.

The staging table is in memory and this process's own. If the warehouse is restarted in between, the staged rows are gone
and the insert moves fewer, or none: so the stage is counted after the insert, and only a full stage proves a full insert.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

import pyarrow as pa
import structlog

from pipeline.errors import RetryableError
from pipeline.storage.clickhouse import ClickHouse

log = structlog.get_logger()

LEFT_OVER_AFTER_S = 3600
_WHOLE_BLOCKS = (
    "max_threads = 1, max_insert_threads = 1, min_insert_block_size_rows = 10000000, min_insert_block_size_bytes = 0"
)
"""One insert, one block a month: the deduplication token then names exactly this content."""


class Stage:
    """The staging table for one target table."""

    def __init__(self, warehouse: ClickHouse, target: str) -> None:
        self._warehouse = warehouse
        self._target = target
        self._name = f"stage_{target}_{os.getpid()}_{secrets.token_hex(4)}"
        self._made = False

    def insert(self, rows: pa.Table, *, token: str, guard: str, **parameters: Any) -> None:
        """Moves those rows for which `guard` (an SQL condition over the target's columns; `{stage}` is the staging
        table) holds. Raises RetryableError where it is unknown whether all went in: insert them again then."""
        if rows.num_rows == 0:
            return
        if not self._made:
            self._make(rows)
        stage = f"{{db}}.{self._name}"
        columns = ", ".join(rows.column_names)
        self._warehouse.command(f"TRUNCATE TABLE {stage}")
        self._warehouse.insert(self._name, rows)
        self._warehouse.command(
            f"INSERT INTO {{db}}.{self._target} ({columns}) "
            f"SETTINGS insert_deduplicate = 1, insert_deduplication_token = '{token}', {_WHOLE_BLOCKS} "
            f"SELECT {columns} FROM {stage} WHERE {guard.replace('{stage}', stage)}",
            **parameters,
        )
        left = self._warehouse.value(f"SELECT count() FROM {stage}")
        if left != rows.num_rows:
            raise RetryableError(f"the warehouse lost {rows.num_rows - left} staged rows: it was restarted")
        self._warehouse.command(f"TRUNCATE TABLE {stage}")

    def _make(self, rows: pa.Table) -> None:
        """Makes the table, and drops those that crashed processes left behind."""
        left_over = self._warehouse.rows(
            "SELECT name FROM system.tables WHERE database = {database:String} AND startsWith(name, {prefix:String}) "
            "AND metadata_modification_time < now() - {age:UInt32}",
            database=self._warehouse.database,
            prefix=f"stage_{self._target}_",
            age=LEFT_OVER_AFTER_S,
        )
        for (name,) in left_over:
            self._warehouse.command(f"DROP TABLE IF EXISTS {{db}}.{name}")
        columns = ", ".join(rows.column_names)
        self._warehouse.command(
            f"CREATE TABLE IF NOT EXISTS {{db}}.{self._name} ENGINE = Memory EMPTY AS SELECT {columns} FROM {{db}}.{self._target}"
        )
        self._made = True

    def drop(self) -> None:
        """Where the warehouse is away the table is left over, for whoever makes a later one: a stop does not fail for it."""
        if not self._made:
            return
        try:
            self._warehouse.command(f"DROP TABLE IF EXISTS {{db}}.{self._name}")
            self._made = False
        except RetryableError as error:
            log.warning("stage_left_over", table=self._name, why=str(error))
