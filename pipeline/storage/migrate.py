"""Numbered SQL files, each run once and recorded with its hash.

A file's statements end with `;` at a line's end and are safe to run again (IF NOT EXISTS), so that a crash inside a file is
mended by the next run. A file that was applied never changes: the next number does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

import pyarrow as pa

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.cluster import render

_BOOK = (
    "CREATE DATABASE IF NOT EXISTS {database}",
    "CREATE TABLE IF NOT EXISTS {database}.migrations (name String, sha256 FixedString(64), "
    "applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY name",
)
"""Where the applied migrations are recorded."""
_STATEMENT_END = re.compile(r";[ \t]*$", re.M)


@dataclass(frozen=True)
class Migration:
    """One file: its name, its hash, its statements with `{database}` still in them."""

    name: str
    sha256: str
    statements: tuple[str, ...]


def migrations() -> list[Migration]:
    """All files in the order of their numbers."""
    found = []
    for file in sorted(
        resources.files("pipeline.storage").joinpath("migrations").iterdir(), key=lambda each: each.name
    ):
        if file.name.endswith(".sql"):
            text = file.read_text()
            statements = tuple(each.strip() for each in _STATEMENT_END.split(text) if each.strip())
            found.append(
                Migration(file.name.removesuffix(".sql"), hashlib.sha256(text.encode()).hexdigest(), statements)
            )
    return found


def rendered(statements: Iterable[str], settings: Settings) -> list[str]:
    """The statements as they are run: for one server, or for the cluster that REPLAY_WAREHOUSE_CLUSTER names."""
    return [
        sql.replace("{database}", f"`{settings.warehouse_database}`")
        for each in statements
        for sql in render(each, settings.warehouse_database, settings.warehouse_cluster)
    ]


def migrate(settings: Settings) -> list[str]:
    """Brings the database up to date and returns the names applied now.

    Raises ConfigurationError where an applied file was changed, RetryableError where the warehouse is away.
    """
    warehouse = ClickHouse(settings)
    try:
        for sql in rendered(_BOOK, settings):
            warehouse.command(sql)
        applied = {name: _text(sha256) for name, sha256 in warehouse.rows("SELECT name, sha256 FROM {db}.migrations")}
        done = []
        for each in migrations():
            if each.name in applied:
                if applied[each.name] != each.sha256:
                    raise ConfigurationError(
                        f"migration {each.name} was changed after it was applied to {settings.warehouse_database}: "
                        "restore the file and put the change into the next number"
                    )
                continue
            for sql in rendered(each.statements, settings):
                warehouse.command(sql)
            warehouse.insert("migrations", pa.table({"name": [each.name], "sha256": [each.sha256]}))
            done.append(each.name)
        return done
    finally:
        warehouse.close()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
