"""kill -9 of the warehouse while blocks go in: each block, sent again under its token, is there exactly once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pyarrow as pa
import pytest

from pipeline import settings as settings_table
from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports, is_taken
from pipeline.settings import Settings
from tests.support import eventually

KILLS = 3
BLOCK_ROWS = 20_000
TABLE = (
    "CREATE TABLE IF NOT EXISTS crash (block UInt32, n UInt64) ENGINE = MergeTree ORDER BY (block, n) "
    "SETTINGS non_replicated_deduplication_window = 1000"
)


class Engine:
    """A warehouse process of its own that can be killed."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings, self._log = settings, log
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "pipeline.local.warehouse"]
        self.running = process.start(command, child_environ(self.settings), self._log)
        eventually(lambda: is_taken(self.settings.warehouse_port), within_s=30, why="the warehouse listens")

    def kill(self) -> None:
        if self.running is not None:
            self.running.kill()
            self.running.wait()

    def client(self):  # type: ignore[no-untyped-def]
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.settings.warehouse_port, autogenerate_session_id=False
        )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (port,) = free_ports(1)
    settings = dataclasses.replace(settings_table.load({}), home=tmp_path, warehouse_port=port)
    found = Engine(settings, tmp_path / "log")
    found.start()
    yield found
    found.kill()


def test_blocks_sent_again_after_a_kill_are_there_exactly_once(engine: Engine) -> None:
    block = 0
    repeated = 0
    for _ in range(KILLS):
        with engine.client() as client:
            client.command(TABLE)
        kill = threading.Timer(0.3, engine.kill)
        kill.start()
        try:
            client = engine.client()
            while True:
                insert(client, block)
                block += 1
        except Exception:  # whatever the client makes of a server that is gone
            repeated += 1
        kill.join()
        engine.start()
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


def test_a_second_warehouse_on_the_same_data_is_refused(engine: Engine, tmp_path: Path) -> None:
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
    assert f"another warehouse process owns {tmp_path / 'warehouse'}" in done.stderr
