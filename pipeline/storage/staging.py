"""Guarded inserts: a block goes into a staging table, and from there what still may go in, in one INSERT … SELECT.

The staging table is in memory and this process's own. If the warehouse is restarted in between, the staged rows are gone
and the insert moves fewer, or none: so the stage is counted after the insert, and only a full stage proves a full insert.
A statement that was given up may still be carried out, late: after an error a stage is never used again.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import structlog

from pipeline.errors import FatalError, RetryableError
from pipeline.storage.clickhouse import ClickHouse

log = structlog.get_logger()

LEFT_OVER_AFTER_S = 3600
RENEWED_AFTER_S = LEFT_OVER_AFTER_S // 2
"""A stage in use is never as old as one that is taken for left over."""
TOKENS_MAX = 100
"""How often the same rows may be lost and completed while the window of tokens remembers them."""
_WHOLE_BLOCKS = (
    "max_threads = 1, max_insert_threads = 1, min_insert_block_size_rows = 10000000, min_insert_block_size_bytes = 0, "
    "max_partitions_per_insert_block = 0"
)
"""One insert, one block a month, however many months: the deduplication token then names exactly this content."""


class Stage:
    """The staging table for one target table."""

    def __init__(self, warehouse: ClickHouse, target: str) -> None:
        self._warehouse = warehouse
        self._target = target
        self._empty: str | None = None
        """The table that is ready for use."""
        self._made_at_s = 0.0
        self._given_up: list[str] = []

    def insert(self, rows: pa.Table, *, token: str, guard: str, **parameters: Any) -> None:
        """Moves those rows for which `guard` (an SQL condition over the target's columns; `{stage}` is the staging
        table) holds. Raises RetryableError where it is unknown whether all went in: insert them again then."""
        if rows.num_rows == 0:
            return
        with self._staged(rows) as stage:
            self._move(rows, stage, token, guard, parameters)

    def complete(self, rows: pa.Table, *, token: str, guard: str, **parameters: Any) -> int:
        """As `insert`, for rows that may have been in the table and were lost: how many were missing, all in now.

        The window of tokens remembers such rows and swallows them. The next token is then tried, and the next: everybody
        counts through the same ones, so two at once do not insert twice.
        """
        if rows.num_rows == 0:
            return 0
        with self._staged(rows) as stage:
            missing = left = self._count(stage, f"WHERE {guard}", parameters)
            for number in range(TOKENS_MAX):
                if not left:
                    return missing
                self._move(rows, stage, f"{token}-{number}" if number else token, guard, parameters)
                left = self._count(stage, f"WHERE {guard}", parameters)
        raise FatalError(f"the warehouse takes no rows of {token}: {TOKENS_MAX} inserts left them out")

    @contextmanager
    def _staged(self, rows: pa.Table) -> Iterator[str]:
        """The table with the rows in it. Raises RetryableError where they were lost meanwhile."""
        name = self._take_up(rows)
        self._given_up.append(name)  # until all has gone well
        stage = f"{{db}}.{name}"
        self._warehouse.insert(name, rows)
        yield stage
        left = self._count(stage, "", {})
        if left != rows.num_rows:
            raise RetryableError(f"the warehouse lost {rows.num_rows - left} staged rows: it was restarted")
        self._warehouse.command(f"TRUNCATE TABLE {stage}")
        self._given_up.remove(name)
        self._empty = name

    def _move(self, rows: pa.Table, stage: str, token: str, guard: str, parameters: dict[str, Any]) -> None:
        columns = ", ".join(rows.column_names)
        self._warehouse.command(
            f"INSERT INTO {{db}}.{self._target} ({columns}) "
            f"SETTINGS insert_deduplicate = 1, insert_deduplication_token = '{token}', {_WHOLE_BLOCKS} "
            f"SELECT {columns} FROM {stage} WHERE {guard.replace('{stage}', stage)}",
            **parameters,
        )

    def _count(self, stage: str, condition: str, parameters: dict[str, Any]) -> int:
        sql = f"SELECT count() FROM {stage} {condition.replace('{stage}', stage)}"
        found: int = self._warehouse.value(sql, **parameters)
        return found

    def _take_up(self, rows: pa.Table) -> str:
        if self._empty and time.monotonic() - self._made_at_s > RENEWED_AFTER_S:
            self._given_up.append(self._empty)
            self._empty = None
        name, self._empty = self._empty, None
        return name or self._make(rows)

    def _make(self, rows: pa.Table) -> str:
        """A new table's name. Drops those that were given up, and those that crashed processes left behind."""
        left_over = self._warehouse.rows(
            "SELECT name FROM system.tables WHERE database = {database:String} AND startsWith(name, {prefix:String}) "
            "AND metadata_modification_time < now() - {age:UInt32}",
            database=self._warehouse.database,
            prefix=f"stage_{self._target}_",
            age=LEFT_OVER_AFTER_S,
        )
        self._drop([*self._given_up, *(name for (name,) in left_over)])
        self._given_up.clear()
        name = f"stage_{self._target}_{os.getpid()}_{secrets.token_hex(4)}"
        columns = ", ".join(rows.column_names)
        self._warehouse.command(
            f"CREATE TABLE IF NOT EXISTS {{db}}.{name} ENGINE = Memory EMPTY AS SELECT {columns} FROM {{db}}.{self._target}"
        )
        self._made_at_s = time.monotonic()
        return name

    def drop(self) -> None:
        """Where the warehouse is away tables are left over, for whoever makes a later one: a stop does not fail for it."""
        own = [*self._given_up, *([self._empty] if self._empty else [])]
        try:
            self._drop(own)
            self._empty = None
            self._given_up.clear()
        except RetryableError as error:
            log.warning("stage_left_over", tables=own, why=str(error))

    def _drop(self, names: list[str]) -> None:
        for name in names:
            self._warehouse.command(f"DROP TABLE IF EXISTS {{db}}.{name}")
