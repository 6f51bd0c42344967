"""The shared services are what they claim: a broker with the catalogue's topics, an engine with the tables."""

from __future__ import annotations

from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.migrate import migrate
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue


def test_applying_the_topics_again_changes_nothing(with_topics: Settings) -> None:
    again = clients.apply(clients.admin(with_topics), catalogue(with_topics))
    assert {each.action for each in again} == {"unchanged"}


def test_migrating_again_does_nothing(with_tables: Settings) -> None:
    assert migrate(with_tables) == []
    warehouse = ClickHouse(with_tables)
    names = {name for (name,) in warehouse.rows("SHOW TABLES FROM {db}")}
    assert {"events", "sessions", "session_users", "blocks", "minutes", "claims", "erasures", "migrations"} <= names
