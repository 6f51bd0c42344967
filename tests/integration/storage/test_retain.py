"""After its retention nothing of a session is left in either store, looked at byte by byte, and another's is whole."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time

import msgspec
import pytest

from pipeline.model.batches import CleanBatch
from pipeline.model.retention import DAY_MS
from pipeline.settings import Settings, to_environ
from pipeline.sinks.delivery import Done, Taken
from pipeline.sinks.objects import ObjectStore
from pipeline.sinks.rows import session_rows, user_rows
from pipeline.sinks.warehouse import WarehouseStore
from pipeline.storage.blobs import open_store
from pipeline.storage.blocks import read_block
from pipeline.storage.clickhouse import ClickHouse
from tests.stored import files_with
from tests.support import eventually
from tests.unit.sinks.clean import batch, update

TABLES = ("events", "sessions", "session_users", "blocks", "minutes")
GONE_WITHIN_S = 90.0
LONG_AGO_MS = time.time_ns() // 1_000_000 - 40 * DAY_MS


class Stores:
    """Both stores with two sessions in every part and every object of one class: the old one's retention is over."""

    def __init__(self, settings: Settings, engine: Settings) -> None:
        self.settings, self.rows, self.objects = settings, engine.home / "warehouse", settings.home / "objects"
        self.warehouse, self.blobs = ClickHouse(settings), open_store(settings)
        for table in TABLES:
            self.warehouse.command(f"SYSTEM STOP TTL MERGES {{db}}.{table}")
        self.old, self.young = f"old-{secrets.token_hex(8)}", f"young-{secrets.token_hex(8)}"

    def take_in(self, batches: list[CleanBatch]) -> None:
        taken = [Taken(each, each.source_offset) for each in batches]
        last = batches[-1].source_offset
        rows, objects = WarehouseStore(self.settings), ObjectStore(self.settings, self.blobs)
        assert rows.flush(0, rows.open(0, None), taken) == Done(last)
        assert objects.flush(0, batches[0].source_offset - 1, taken) == Done(last)
        updates = [(update(each), each.source_at) for each in batches]
        self.warehouse.insert("sessions", session_rows(updates))
        self.warehouse.insert("session_users", user_rows(updates))
        rows.end()
        objects.end()

    def force_ttl(self) -> None:
        """What happens by itself within hours, now; parts that were merged away are let go at once."""
        for table in TABLES:
            self.warehouse.command(
                f"ALTER TABLE {{db}}.{table} MODIFY SETTING old_parts_lifetime = 1, cleanup_delay_period = 1, "
                "cleanup_delay_period_random_add = 0, merge_with_ttl_timeout = 0"
            )
            self.warehouse.command(f"SYSTEM START TTL MERGES {{db}}.{table}")
            self.warehouse.command(f"OPTIMIZE TABLE {{db}}.{table} FINAL")

    def replay_retain(self, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "retain", *options],
            env={**os.environ, **to_environ(self.settings)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def count(self, table: str, session: str) -> int:
        where = "" if table == "minutes" else f"WHERE session_id = '{session}'"
        return self.warehouse.value(f"SELECT count() FROM {{db}}.{table} {where}")

    def recording(self, session: str) -> list[bytes]:
        """The session's lines, from the index's ranges."""
        rows = self.warehouse.rows(
            "SELECT object, byte_start, byte_length, toString(sha256) FROM {db}.blocks WHERE session_id = {s:String} "
            "ORDER BY source_offset",
            s=session,
        )
        return [
            bytes(line.data)
            for key, start, length, sha in rows
            for line in read_block(self.blobs.get_range(key, start, length), sha)
        ]


@pytest.fixture
def stores(with_tables: Settings, engine: Settings) -> Stores:
    return Stores(with_tables, engine)


def said(session: str, offset: int, source_at: int, retention: str) -> CleanBatch:
    """One batch that names its session in what it says, so that any trace of it can be found."""
    found = batch(
        offset,
        [("console", source_at, {"args": [f"{session} says {n}"]}) for n in range(3)],
        session_id=session,
        user_id=f"user-of-{session}",
        source_at=source_at,
        retention=retention,
    )
    return msgspec.structs.replace(found, first_event_at=source_at, last_event_at=source_at)


def test_after_its_retention_no_byte_is_left_and_the_other_session_is_whole(stores: Stores) -> None:
    stores.take_in(
        [
            said(stores.old, 0, LONG_AGO_MS, "30d"),
            said(stores.young, 1, LONG_AGO_MS, "1y"),
            said(stores.old, 2, LONG_AGO_MS + 1, "30d"),
        ]
    )
    stores.take_in([said(stores.young, 3, time.time_ns() // 1_000_000, "30d")])
    before = stores.recording(stores.young)
    assert len(before) == 6
    for session in (stores.old, stores.young):
        assert files_with(stores.rows, session)
        assert files_with(stores.objects, session)

    would = stores.replay_retain("--dry-run")
    assert len(files_with(stores.objects, stores.old)) == 2  # an object and its manifest
    assert stores.replay_retain() == would
    assert files_with(stores.objects, stores.old) == []
    stores.force_ttl()
    eventually(lambda: not files_with(stores.rows, stores.old), within_s=GONE_WITHIN_S, why="old parts are let go of")

    assert {table: stores.count(table, stores.old) for table in TABLES if table != "minutes"} == {
        "events": 0, "sessions": 0, "session_users": 0, "blocks": 0
    }  # fmt: skip
    assert stores.count("events", stores.young) == 6
    assert stores.recording(stores.young) == before
    assert stores.replay_retain() == ""
