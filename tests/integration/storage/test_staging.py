"""The staging table, where the warehouse is away or hears things late."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest

from pipeline.errors import FatalError, RetryableError
from pipeline.settings import Settings
from pipeline.sinks.rows import event_rows
from pipeline.storage import staging
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.staging import Stage
from tests.chaos.proxy import FaultProxy
from tests.support import eventually
from tests.unit.sinks import clean

STAGES = "SELECT count() FROM system.tables WHERE database = {database:String} AND startsWith(name, 'stage_')"


def test_a_stage_that_cannot_be_dropped_is_left_over_and_the_stop_goes_on(with_tables: Settings) -> None:
    proxy = FaultProxy(with_tables.warehouse_port, seed=1, own_host=False)
    direct = ClickHouse(with_tables)
    stage = Stage(ClickHouse(dataclasses.replace(with_tables, warehouse_url=proxy.url)), "events")
    stage.insert(event_rows([clean.clicks(0)]), token="one", guard="1")
    with proxy.faulty("answers-503", share=1.0):
        stage.drop()
    assert direct.value(STAGES, database=with_tables.warehouse_database) == 1
    stage.drop()
    assert direct.value(STAGES, database=with_tables.warehouse_database) == 0
    proxy.close()


class LateOnce:
    """A warehouse that hears the first block only when the next has come: its client gave it up for lost before."""

    def __init__(self, real: ClickHouse) -> None:
        self._real = real
        self._late: list[tuple[Any, ...]] = []
        self._gave_up = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def insert(self, *block: Any) -> None:
        if not self._gave_up:
            self._gave_up = True
            self._late.append(block)
            raise RetryableError("no answer in time")
        self._real.insert(*block)
        while self._late:
            with contextlib.suppress(FatalError):  # nobody hears what became of it
                self._real.insert(*self._late.pop())


def test_a_block_that_comes_late_beside_its_repeat_doubles_nothing(with_tables: Settings) -> None:
    stage = Stage(LateOnce(ClickHouse(with_tables)), "events")  # type: ignore[arg-type]
    rows = event_rows([clean.clicks(0, retention="9y"), clean.clicks(1, retention="9y")])
    with pytest.raises(RetryableError):
        stage.insert(rows, token="one", guard="1")
    stage.insert(rows, token="one", guard="1")
    assert ClickHouse(with_tables).value("SELECT count() FROM {db}.events") == 2
    stage.drop()
    assert ClickHouse(with_tables).value(STAGES, database=with_tables.warehouse_database) == 0


def test_a_stage_that_lives_long_is_not_taken_for_left_over(
    with_tables: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sinks share the partitions: one has run for long when the other starts and cleans up."""
    warehouse = ClickHouse(with_tables)
    old, new = Stage(ClickHouse(with_tables), "events"), Stage(ClickHouse(with_tables), "events")
    rows = [event_rows([clean.clicks(n, retention="9y")]) for n in range(3)]
    old.insert(rows[0], token="one", guard="1")
    monkeypatch.setattr(staging, "LEFT_OVER_AFTER_S", 0)
    monkeypatch.setattr(staging, "RENEWED_AFTER_S", 0)
    eventually(
        lambda: warehouse.value(
            f"{STAGES} AND metadata_modification_time < now()", database=with_tables.warehouse_database
        ),
        within_s=10,
        why="the first stage is older than a second",
    )
    new.insert(rows[1], token="two", guard="1")
    old.insert(rows[2], token="three", guard="1")
    assert warehouse.value("SELECT count() FROM {db}.events") == 3


def test_a_block_may_lie_in_any_number_of_months(with_tables: Settings) -> None:
    """The engine's own limit is 100 parts an insert; whoever is held to it tries for ever."""
    months = [month * 31 * 86_400_000 for month in range(150)]
    stage = Stage(ClickHouse(with_tables), "events")
    stage.insert(event_rows([clean.clicks(0, months, retention="9y")]), token="one", guard="1")
    assert ClickHouse(with_tables).value("SELECT count() FROM {db}.events") == len(months)
    stage.drop()
