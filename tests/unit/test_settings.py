"""The settings table: parsed, inverted, and secret where it must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import settings
from pipeline.errors import ConfigurationError


def test_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="REPLAY_CAPTURE_PROT is not a setting"):
        settings.load({"REPLAY_CAPTURE_PROT": "1"})


def test_unreadable_value_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="REPLAY_API_PORT must be a whole number") as caught:
        settings.load({"REPLAY_API_PORT": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_child_sees_the_settings_of_its_parent() -> None:
    parent = settings.load(
        {"REPLAY_KAFKA_PORT": "1234", "REPLAY_HOME": "x/y", "REPLAY_WAREHOUSE_URL": "http://u:p@h:1"}
    )
    child = settings.load(settings.to_environ(parent))
    assert child.kafka == "127.0.0.1:1234"
    assert child.home == Path("x/y").absolute()
    assert child.warehouse == parent.warehouse


def test_table_has_a_help_for_each_and_shows_no_secret() -> None:
    rows = settings.table(settings.load({"REPLAY_WAREHOUSE_URL": "http://user:hunter2@host:8123"}))
    assert all(row.help for row in rows)
    assert all("hunter2" not in row.value for row in rows)


def test_ports_are_the_designs() -> None:
    found = settings.load({})
    assert (found.capture_port, found.api_port, found.warehouse_port, found.kafka_port) == (8000, 8001, 8123, 9092)
