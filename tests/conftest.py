"""Real services for the tests that ask for them: one broker and one warehouse a run, topics and a database a test."""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import settings as settings_table
from pipeline.local import kafka, process
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports, is_taken
from pipeline.settings import Settings
from pipeline.storage.migrate import migrate
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from tests.support import eventually

BROKER_LIMIT_S = 60.0
WAREHOUSE_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0


@pytest.fixture(scope="session")
def services_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="session")
def broker(services_home: Path) -> Iterator[Settings]:
    """A real broker on a free port; the settings say which."""
    (port,) = free_ports(1)
    settings = dataclasses.replace(settings_table.load(), home=services_home / "broker", kafka_port=port)
    command = kafka.prepare(settings, quiet=True)
    running = process.start(command, dict(os.environ), services_home / "kafka.log")
    try:
        eventually(lambda: kafka.answers(settings), within_s=BROKER_LIMIT_S, why="the broker answers")
        yield settings
    finally:
        _stop(running)


@pytest.fixture(scope="session")
def engine(services_home: Path) -> Iterator[Settings]:
    """The embedded warehouse on a free port; the settings say which."""
    (port,) = free_ports(1)
    settings = dataclasses.replace(settings_table.load(), home=services_home / "engine", warehouse_port=port)
    settings.home.mkdir()
    command = [sys.executable, "-m", "pipeline.local.warehouse"]
    running = process.start(command, child_environ(settings), services_home / "warehouse.log")
    try:
        eventually(lambda: is_taken(port), within_s=WAREHOUSE_LIMIT_S, why="the warehouse listens")
        yield settings
    finally:
        _stop(running)


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


def _stop(running: subprocess.Popen[bytes]) -> None:
    running.terminate()
    try:
        running.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
