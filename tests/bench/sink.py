"""The warehouse sink against a raw insert_arrow of the same rows, prepared beforehand, into the same kind of table.

The sink's side is all that it does with records once they are read: Avro decoded, rows made of clean payloads, the claim, the
guarded insert, the counts by minute, the mark. The raw side is one clickhouse-connect call that promises nothing when it is
repeated.
"""

from __future__ import annotations

import dataclasses
import secrets
import time

from pipeline.model.batches import CleanBatch
from pipeline.settings import Settings
from pipeline.sinks.delivery import Done, Taken
from pipeline.sinks.rows import event_rows
from pipeline.sinks.warehouse import WarehouseStore
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.migrate import migrate
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, RecordCodec
from pipeline.topics.registry import schema_ids
from tests.bench.rounds import interleaved, tell
from tests.bench.rows import clean_blocks, engine, tell_size

COPIES = 700
ROWS_A_BLOCK = 100_000
BLOCKS = 3
ROUNDS = 7


def main() -> None:
    with engine() as settings:
        blocks = clean_blocks(copies=COPIES, rows_a_block=ROWS_A_BLOCK)[:BLOCKS]
        codec = Codecs(catalogue(settings), schema_ids(settings)).clean
        records = [[codec.encode(batch) for batch in block] for block in blocks]
        rows = sum(batch.event_count for block in blocks for batch in block)
        print(f"{rows:,} rows in {len(blocks)} blocks", flush=True)
        sides = {
            "insert_arrow": lambda: rows / _raw(settings, blocks),
            "warehouse sink": lambda: rows / _sink(settings, codec, records),
        }
        tell(interleaved(sides, ROUNDS), baseline="insert_arrow", unit="rows/s")
        _raw(settings, blocks, tell_its_size=True)


def _sink(settings: Settings, codec: RecordCodec, records: list[list[bytes]]) -> float:
    """Seconds for all blocks through the store, in a database of its own."""
    own = dataclasses.replace(settings, warehouse_database=f"sink_{secrets.token_hex(3)}")
    migrate(own)
    store = WarehouseStore(own)
    mark = store.open(0, None)
    began = time.perf_counter()
    for block in records:
        batches = [codec.decode(value) for value in block]
        done = store.flush(0, mark, [Taken(batch, batch.source_offset) for batch in batches])
        assert isinstance(done, Done)
        mark = done.mark
    seconds = time.perf_counter() - began
    store.end()
    return seconds


def _raw(settings: Settings, blocks: list[list[CleanBatch]], *, tell_its_size: bool = False) -> float:
    """Seconds for the same rows, ready as Arrow tables, by plain inserts."""
    own = dataclasses.replace(settings, warehouse_database=f"raw_{secrets.token_hex(3)}")
    migrate(own)
    warehouse = ClickHouse(own)
    tables = [event_rows(block) for block in blocks]
    began = time.perf_counter()
    for table in tables:
        warehouse.insert("events", table)
    seconds = time.perf_counter() - began
    if tell_its_size:
        tell_size(warehouse)
    warehouse.close()
    return seconds
