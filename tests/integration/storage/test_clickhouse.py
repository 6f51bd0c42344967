"""A warehouse that fails on the wire: whatever it answers, or does not, the same statement may be made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.errors import FatalError, PoisonError, ReplayError, RetryableError
from pipeline.settings import Settings
from pipeline.storage import clickhouse
from pipeline.storage.clickhouse import ClickHouse
from tests.chaos.proxy import FAULTS, Fault, FaultProxy

TABLE = "failing_wire"
ROWS = pa.table({"n": list(range(100))})


@pytest.fixture
def proxy(engine: Settings) -> Iterator[FaultProxy]:
    found = FaultProxy(engine.warehouse_port, seed=1, own_host=False)
    yield found
    found.close()


@pytest.fixture
def warehouse(engine: Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClickHouse]:
    """Connected through the proxy, with a table to write to; silence is given up after a second."""
    monkeypatch.setattr(clickhouse, "ANSWER_TIMEOUT_S", 1)
    found = ClickHouse(dataclasses.replace(engine, warehouse_url=proxy.url, warehouse_database="default"))
    found.command(f"CREATE OR REPLACE TABLE {TABLE} (n UInt64) ENGINE = Memory")
    yield found
    found.command(f"DROP TABLE {TABLE}")
    found.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_retryable_and_over_when_it_is_over(
    warehouse: ClickHouse, proxy: FaultProxy, fault: Fault
) -> None:
    with proxy.faulty(fault, share=1.0):
        with pytest.raises(RetryableError):
            warehouse.rows("SELECT 1 AS one, 2 AS two")
        with pytest.raises(RetryableError):
            warehouse.command(f"TRUNCATE TABLE {TABLE}")
        with pytest.raises(RetryableError):
            warehouse.insert(TABLE, ROWS)
    assert warehouse.value("SELECT 1") == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_first_connection_that_fails_is_retryable(
    engine: Settings, proxy: FaultProxy, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clickhouse, "ANSWER_TIMEOUT_S", 1)
    found = ClickHouse(dataclasses.replace(engine, warehouse_url=proxy.url, warehouse_database="default"))
    with proxy.faulty(fault, share=1.0), pytest.raises(RetryableError):
        found.value("SELECT 1")
    assert found.value("SELECT 1") == 1


@pytest.mark.parametrize(("fault", "there"), [("request-cut", 0), ("answer-lost", ROWS.num_rows)])
def test_an_insert_whose_answer_is_lost_is_there_and_a_cut_one_is_not(
    warehouse: ClickHouse, proxy: FaultProxy, fault: Fault, there: int
) -> None:
    with proxy.faulty(fault, share=1.0), pytest.raises(RetryableError):
        warehouse.insert(TABLE, ROWS)
    assert warehouse.value(f"SELECT count() FROM {TABLE}") == there


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (159, RetryableError),  # TIMEOUT_EXCEEDED
        (252, RetryableError),  # TOO_MANY_PARTS
        (6, PoisonError),  # CANNOT_PARSE_TEXT
        (69, PoisonError),  # ARGUMENT_OUT_OF_BOUND
        (469, PoisonError),  # VIOLATED_CONSTRAINT
        (60, FatalError),  # UNKNOWN_TABLE
        (497, FatalError),  # ACCESS_DENIED
    ],
)
def test_a_servers_code_tells_what_to_do_and_its_message_goes_no_further(
    engine: Settings, code: int, kind: type[ReplayError]
) -> None:
    warehouse = ClickHouse(dataclasses.replace(engine, warehouse_database="default"))
    with pytest.raises(kind, match=f"code {code}") as error:
        warehouse.command(
            f"SELECT throwIf(1, 'what was recorded', {code}::Int16) SETTINGS allow_custom_error_code_in_throwif = 1"
        )
    assert "recorded" not in str(error.value)
