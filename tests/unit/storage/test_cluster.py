"""The cluster form of a statement, written out by hand."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigurationError
from pipeline.storage.cluster import SHARDED, render
from pipeline.storage.migrate import migrations

TABLE = """-- One row an event.
CREATE TABLE IF NOT EXISTS {{database}}.{name}
(
    tenant String -- whose
)
ENGINE = {engine}
ORDER BY tenant
SETTINGS non_replicated_deduplication_window = 20000"""


def test_one_server_is_given_the_statement_as_it_stands() -> None:
    statement = TABLE.format(name="events", engine="MergeTree")
    assert render(statement, "replay", "") == [statement]


@pytest.mark.parametrize(
    ("engine", "replicated"),
    [
        ("MergeTree", "ReplicatedMergeTree('/clickhouse/tables/replay/sessions_local/{shard}', '{replica}')"),
        (
            "ReplacingMergeTree(revision)",
            "ReplicatedReplacingMergeTree('/clickhouse/tables/replay/sessions_local/{shard}', '{replica}', revision)",
        ),
    ],
)
def test_what_belongs_to_sessions_is_sharded_by_session(engine: str, replicated: str) -> None:
    local, distributed = render(TABLE.format(name="sessions", engine=engine), "replay", "main")
    assert local.startswith("CREATE TABLE IF NOT EXISTS {database}.sessions_local ON CLUSTER `main`\n(")
    assert f"ENGINE = {replicated}\nORDER BY tenant\n" in local
    assert local.endswith(
        "SETTINGS replicated_deduplication_window = 20000, replicated_deduplication_window_seconds = 604800"
    )
    assert distributed == (
        "CREATE TABLE IF NOT EXISTS {database}.sessions ON CLUSTER `main` AS {database}.sessions_local "
        "ENGINE = Distributed('main', 'replay', 'sessions_local', cityHash64(tenant, session_id))"
    )


def test_a_book_lies_whole_on_every_server() -> None:
    (book,) = render(TABLE.format(name="claims", engine="MergeTree"), "replay", "main")
    assert book.startswith("CREATE TABLE IF NOT EXISTS {database}.claims ON CLUSTER `main`\n(")
    assert "ENGINE = ReplicatedMergeTree('/clickhouse/tables/replay/claims', '{shard}-{replica}')" in book


def test_a_sharded_table_is_altered_below_and_above() -> None:
    assert render("ALTER TABLE {database}.events\n    ADD COLUMN IF NOT EXISTS a Int64", "replay", "main") == [
        "ALTER TABLE {database}.events_local ON CLUSTER `main`\n    ADD COLUMN IF NOT EXISTS a Int64",
        "ALTER TABLE {database}.events ON CLUSTER `main`\n    ADD COLUMN IF NOT EXISTS a Int64",
    ]


def test_what_is_no_column_is_altered_below_only() -> None:
    assert render("ALTER TABLE {database}.events MODIFY SETTING old_parts_lifetime = 60", "replay", "main") == [
        "ALTER TABLE {database}.events_local ON CLUSTER `main` MODIFY SETTING old_parts_lifetime = 60"
    ]


@pytest.mark.parametrize("statement", ["DROP TABLE {database}.events", "CREATE TABLE IF NOT EXISTS {database}.t (a Int8) ENGINE = Log"])  # fmt: skip
def test_a_statement_without_a_cluster_form_is_told(statement: str) -> None:
    with pytest.raises(ConfigurationError, match="no cluster form"):
        render(statement, "replay", "main")


def test_a_name_that_would_end_its_quotes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="REPLAY_WAREHOUSE_CLUSTER"):
        render("CREATE DATABASE IF NOT EXISTS {database}", "replay", "a` SYNC")


def test_every_table_with_sessions_rows_is_sharded_but_the_books_of_erasures_and_pins() -> None:
    tables = {
        statement.split("{database}.")[1].split()[0]
        for migration in migrations()
        for statement in migration.statements
        if "CREATE TABLE" in statement and "\n    session_id " in statement
    }
    assert tables - {"erasures", "pins"} == set(SHARDED) - {"minutes"}
