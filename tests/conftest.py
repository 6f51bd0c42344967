"""Real services for the tests that ask for them: one broker and one warehouse a run, topics and a database a test."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import settings as settings_table
from pipeline.settings import Settings
from pipeline.storage.migrate import migrate
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from tests import services


@pytest.fixture(scope="session")
def services_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="session")
def broker(services_home: Path) -> Iterator[Settings]:
    """A real broker on a free port; the settings say which."""
    settings, service = services.broker(services_home / "broker")
    with service.running():
        yield settings


@pytest.fixture(scope="session")
def engine(services_home: Path) -> Iterator[Settings]:
    """The embedded warehouse on a free port; the settings say which."""
    settings, service = services.warehouse(services_home / "engine")
    with service.running():
        yield settings


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """Settings of a home of its own; no service is started."""
    return dataclasses.replace(settings_table.load({}), home=tmp_path, cache=settings_table.load().cache)


@pytest.fixture
def with_topics(broker: Settings, home: Settings) -> Settings:
    """Topics of its own on the real broker."""
    settings = dataclasses.replace(home, kafka_port=broker.kafka_port, **_own_names())
    clients.apply(clients.admin(settings), catalogue(settings))
    return settings


@pytest.fixture
def with_tables(engine: Settings, home: Settings) -> Settings:
    """A database of its own on the real engine."""
    settings = dataclasses.replace(
        home, warehouse_port=engine.warehouse_port, warehouse_database=f"t_{secrets.token_hex(4)}"
    )
    migrate(settings)
    return settings


@pytest.fixture
def with_both(with_topics: Settings, with_tables: Settings) -> Settings:
    """Topics and a database of its own, one home."""
    return dataclasses.replace(
        with_topics,
        warehouse_port=with_tables.warehouse_port,
        warehouse_database=with_tables.warehouse_database,
    )


def _own_names() -> dict[str, str]:
    word = secrets.token_hex(4)
    return {"topic_prefix": f"t{word}.", "worker_group": f"{word}-workers", "sink_group": f"{word}-sink"}
