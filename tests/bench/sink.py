"""The warehouse sink against a raw insert_arrow of the same rows, prepared beforehand, into the same kind of table.

The sink's side is all that it does with a flush: rows made of clean payloads, the claim, the guarded insert, the counts by
minute, the mark. The raw side is one clickhouse-connect call that promises nothing when it is repeated.
"""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import settings as settings_table
from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports, is_taken
from pipeline.model.batches import CleanBatch
from pipeline.settings import Settings
from pipeline.sinks.delivery import Taken
from pipeline.sinks.rows import event_rows
from pipeline.sinks.warehouse import WarehouseStore
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.migrate import migrate
from pipeline.workers.chain import Where, step
from pipeline.workers.rules import Rules
from tests.bench.rounds import interleaved, tell
from tests.bench.worker import batches

COPIES = 700
ROWS_A_BLOCK = 100_000
BLOCKS = 3
START_LIMIT_S = 60.0


def main() -> None:
    with _engine() as settings:
        blocks = _blocks()
        rows = sum(batch.event_count for block in blocks for batch in block)
        print(f"{rows:,} rows in {len(blocks)} blocks", flush=True)
        sides = {
            "insert_arrow": lambda: rows / _raw(settings, blocks),
            "warehouse sink": lambda: rows / _sink(settings, blocks),
        }
        tell(interleaved(sides), baseline="insert_arrow", unit="rows/s")


def _blocks() -> list[list[CleanBatch]]:
    """Clean batches of the conforming recordings, offsets without a hole, in blocks as the sink flushes them."""
    clean: list[CleanBatch] = []
    rules = Rules()
    offset = itertools.count()
    for batch in batches(hostile=False, copies=COPIES):
        where = Where("replay.batches", 0, next(offset), batch.received_at)
        clean.append(step(None, batch, where, rules).clean)
    blocks: list[list[CleanBatch]] = [[]]
    for each in clean:
        if sum(one.event_count for one in blocks[-1]) >= ROWS_A_BLOCK:
            blocks.append([])
        blocks[-1].append(each)
    return blocks[:BLOCKS]


def _sink(settings: Settings, blocks: list[list[CleanBatch]]) -> float:
    """Seconds for all blocks through the store, in a database of its own."""
    own = dataclasses.replace(settings, warehouse_database=f"sink_{secrets.token_hex(3)}")
    migrate(own)
    store = WarehouseStore(own)
    mark = store.open(0, None)
    began = time.perf_counter()
    for block in blocks:
        mark = store.flush(0, mark, [Taken(batch, batch.source_offset) for batch in block]).mark  # type: ignore[union-attr]
    seconds = time.perf_counter() - began
    store.end()
    return seconds


def _raw(settings: Settings, blocks: list[list[CleanBatch]]) -> float:
    """Seconds for the same rows, ready as Arrow tables, by plain inserts."""
    own = dataclasses.replace(settings, warehouse_database=f"raw_{secrets.token_hex(3)}")
    migrate(own)
    warehouse = ClickHouse(own)
    tables = [event_rows(block) for block in blocks]
    began = time.perf_counter()
    for table in tables:
        warehouse.insert("events", table)
    seconds = time.perf_counter() - began
    warehouse.close()
    return seconds


@contextmanager
def _engine() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as folder:
        (port,) = free_ports(1)
        settings = dataclasses.replace(settings_table.load(), home=Path(folder) / "home", warehouse_port=port)
        settings.home.mkdir()
        command = [sys.executable, "-m", "pipeline.local.warehouse"]
        running = process.start(command, child_environ(settings), Path(folder) / "warehouse.log")
        try:
            until = time.monotonic() + START_LIMIT_S
            while not is_taken(port):
                if time.monotonic() > until:
                    raise TimeoutError("the warehouse does not listen")
                time.sleep(0.1)
            yield settings
        finally:
            running.terminate()
            running.wait(15)
