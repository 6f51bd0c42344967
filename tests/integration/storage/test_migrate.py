"""The engine's own parser reads every migration in both forms, and one server runs them once."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.errors import FatalError
from pipeline.settings import Settings
from pipeline.storage import cluster
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.migrate import migrate, migrations, rendered


@pytest.mark.parametrize("name", ["", "main-1"])
@pytest.mark.parametrize("migration", migrations(), ids=lambda each: each.name)
def test_the_engines_parser_reads_every_statement(engine: Settings, migration, name: str) -> None:
    settings = dataclasses.replace(engine, warehouse_cluster=name)
    warehouse = ClickHouse(engine)
    statements = rendered(migration.statements, settings)
    assert len(statements) >= len(migration.statements)
    for sql in statements:
        read = warehouse.value("SELECT formatQuery({statement:String})", statement=sql)
        assert ("ON CLUSTER" in read) is bool(name)
        assert "{database}" not in read
        assert warehouse.rows(f"EXPLAIN AST {sql}")


def test_what_the_parser_cannot_read_is_found(engine: Settings) -> None:
    with pytest.raises(FatalError, match="code 62"):
        ClickHouse(engine).value("SELECT formatQuery('CREATE TABLE a ON CLUSTER (b Int8)')")


def test_migrations_run_once(with_tables: Settings) -> None:
    assert migrate(with_tables) == []
    recorded = ClickHouse(with_tables).rows("SELECT name FROM {db}.migrations ORDER BY name")
    assert [name for (name,) in recorded] == [each.name for each in migrations()]


def test_the_engine_knows_what_is_set_for_a_cluster(engine: Settings) -> None:
    names = sorted(cluster.SETTINGS)
    known = ClickHouse(engine).rows(
        "SELECT name FROM system.settings WHERE name IN {names:Array(String)} ORDER BY name", names=names
    )
    assert [name for (name,) in known] == names
