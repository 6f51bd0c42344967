"""The staging table of a sink that is told to stop while the warehouse is away."""

from __future__ import annotations

import dataclasses

from pipeline.settings import Settings
from pipeline.sinks.rows import event_rows
from pipeline.sinks.staging import Stage
from pipeline.storage.clickhouse import ClickHouse
from tests.chaos.proxy import FaultProxy
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
