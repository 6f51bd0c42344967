"""kill -9 of the warehouse while blocks go in: each block, sent again under its token, is there exactly once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import clickhouse_connect
import pyarrow as pa
import pytest

from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports
from pipeline.settings import Settings
from tests import services
from tests.services import Service

KILLS = 3
BLOCK_ROWS = 20_000
TABLE = (
    "CREATE TABLE IF NOT EXISTS crash (block UInt32, n UInt64) ENGINE = MergeTree ORDER BY (block, n) "
    "SETTINGS non_replicated_deduplication_window = 1000"
)


@dataclass(frozen=True)
class Engine:
    """A warehouse process of its own that can be killed."""

    settings: Settings
    service: Service

    def client(self):  # type: ignore[no-untyped-def]
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.settings.warehouse_port, autogenerate_session_id=False
        )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    settings, service = services.warehouse(tmp_path / "engine")
    with service.running():
        yield Engine(settings, service)


def test_blocks_sent_again_after_a_kill_are_there_exactly_once(engine: Engine) -> None:
    block = 0
    repeated = 0
    for _ in range(KILLS):
        with engine.client() as client:
            client.command(TABLE)
        kill = threading.Timer(0.3, engine.service.kill)
        kill.start()
        try:
            client = engine.client()
            while True:
                insert(client, block)
                block += 1
        except Exception:  # whatever the client makes of a server that is gone
            repeated += 1
        kill.join()
        engine.service.start()
        with engine.client() as client:
            insert(client, block)  # nobody knows whether it is there
            block += 1
            insert(client, block - 2)  # nor whether an answer got lost
    with engine.client() as client:
        found = client.query("SELECT block, count(), uniqExact(n), sum(n) FROM crash GROUP BY block ORDER BY block")
    expected = BLOCK_ROWS * (BLOCK_ROWS - 1) // 2
    assert found.result_rows == [(number, BLOCK_ROWS, BLOCK_ROWS, expected) for number in range(block)]
    assert repeated == KILLS
    assert block > KILLS


def insert(client, block: int) -> None:  # type: ignore[no-untyped-def]
    if block < 0:
        return
    rows = pa.table(
        {"block": pa.array([block] * BLOCK_ROWS, pa.uint32()), "n": pa.array(range(BLOCK_ROWS), pa.uint64())}
    )
    client.insert_arrow("crash", rows, settings={"insert_deduplication_token": f"block-{block}", "async_insert": 0})


def test_a_second_warehouse_on_the_same_data_is_refused(engine: Engine) -> None:
    (port,) = free_ports(1)
    environ = child_environ(dataclasses.replace(engine.settings, warehouse_port=port))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.local.warehouse"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"another warehouse process owns {engine.settings.home / 'warehouse'}" in done.stderr
