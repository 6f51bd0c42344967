"""What the warehouse's benchmarks store: clean batches of the bundled recordings, and an engine of their own."""

from __future__ import annotations

import dataclasses
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pipeline import settings as settings_table
from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports, is_taken
from pipeline.model.batches import CleanBatch
from pipeline.model.events import decode_payload, encode_payload
from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from pipeline.workers.chain import Where, step
from pipeline.workers.rules import Rules
from tests.bench.worker import batches

START_LIMIT_S = 60.0
PLACES = ("x", "y", "scrollX", "scrollY")
PIXELS, MS = 20, 8
MOVING = frozenset({"mousemove", "scroll", "click"})


def clean_blocks(*, copies: int, rows_a_block: int) -> list[list[CleanBatch]]:
    """Clean batches of the conforming recordings, `copies` sessions of each, offsets without a hole, in blocks as the sink
    flushes them. Times and places of every copy differ a little: else a column's codec would find each copy in the last."""
    rules, vary = Rules(), random.Random(1)
    blocks: list[list[CleanBatch]] = [[]]
    rows = 0
    for offset, batch in zip(itertools.count(), batches(hostile=False, copies=copies)):
        where = Where("replay.batches", 0, offset, batch.received_at)
        clean = _varied(step(None, batch, where, rules).clean, vary)
        if rows >= rows_a_block:
            blocks.append([])
            rows = 0
        blocks[-1].append(clean)
        rows += clean.event_count
    return blocks


def _varied(batch: CleanBatch, vary: random.Random) -> CleanBatch:
    events = decode_payload(batch.payload)
    for event in events:
        event.timestamp += vary.randrange(MS)
        if event.type in MOVING:
            data = msgspec.json.decode(event.data)
            for name in PLACES:
                if name in data:
                    data[name] += vary.randrange(-PIXELS, PIXELS + 1)
            event.data = msgspec.Raw(msgspec.json.encode(data))
    return msgspec.structs.replace(batch, payload=encode_payload(events))


def tell_size(warehouse: ClickHouse) -> None:
    """Prints what a row of `events` takes on disk, all columns, index and marks, once parts are merged."""
    warehouse.command("OPTIMIZE TABLE {db}.events FINAL")
    size, rows, largest = warehouse.rows(
        "SELECT sum(bytes_on_disk), sum(rows), "
        "(SELECT arrayStringConcat(groupArray(concat(name, ' ', toString(round(data_compressed_bytes / n, 1)))), ', ') FROM "
        "(SELECT name, data_compressed_bytes, (SELECT count() FROM {db}.events) AS n FROM system.columns "
        "WHERE database = {database:String} AND table = 'events' ORDER BY 2 DESC LIMIT 6)) "
        "FROM system.parts WHERE active AND database = {database:String} AND table = 'events'",
        database=warehouse.database,
    )[0]
    print(f"{size / rows:.1f} bytes a row on disk in {rows:,} rows; the largest columns: {largest}", flush=True)


@contextmanager
def engine() -> Iterator[Settings]:
    """An embedded warehouse on a free port, gone with its data afterwards."""
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
