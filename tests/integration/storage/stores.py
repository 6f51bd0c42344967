"""Both stores, filled by both sinks, for tests that look at what is left in them."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
from starlette.types import ASGIApp

from pipeline.model.batches import CleanBatch
from pipeline.model.retention import DAY_MS
from pipeline.settings import Settings, to_environ
from pipeline.sinks.delivery import Done, Taken
from pipeline.sinks.objects import ObjectStore
from pipeline.sinks.rows import session_rows, user_rows
from pipeline.sinks.warehouse import WarehouseStore
from pipeline.storage.blobs import open_store
from pipeline.storage.clickhouse import ClickHouse
from tests.stored import files_with
from tests.unit.sinks.clean import batch, update

TABLES = ("events", "sessions", "session_users", "blocks", "minutes")
TENANT = "acme"
LONG_AGO_MS = time.time_ns() // 1_000_000 - 40 * DAY_MS


class Stores:
    """Both stores of one home. The warehouse lets nothing expire before `force_ttl`."""

    def __init__(self, settings: Settings, engine: Settings) -> None:
        self.settings, self.rows, self.objects = settings, engine.home / "warehouse", settings.home / "objects"
        self.warehouse, self.blobs = ClickHouse(settings), open_store(settings)
        for table in TABLES:
            self.warehouse.command(f"SYSTEM STOP TTL MERGES {{db}}.{table}")

    def take_in(self, batches: Sequence[CleanBatch]) -> None:
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
        """What happens by itself within hours, now: what has expired is merged away, and the parts that were replaced are let
        go. The thread that does so sleeps for minutes where there was nothing to do; a table that is attached wakes it."""
        for table in (*TABLES, "pins"):
            self.warehouse.command(
                f"ALTER TABLE {{db}}.{table} MODIFY SETTING old_parts_lifetime = 1, cleanup_delay_period = 1, "
                "cleanup_delay_period_random_add = 0, merge_with_ttl_timeout = 0"
            )
            self.warehouse.command(f"SYSTEM START TTL MERGES {{db}}.{table}")
            self.warehouse.command(f"OPTIMIZE TABLE {{db}}.{table} FINAL")
            self.warehouse.command(f"DETACH TABLE {{db}}.{table} SYNC")
            self.warehouse.command(f"ATTACH TABLE {{db}}.{table}")

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

    def left(self, session: str) -> list[str]:
        """The files of either store that hold anything of the session. The warehouse's log of mutations is not its data: it
        names the sessions that were changed by hand, and forgets them after a hundred others."""
        rows = [name for name in files_with(self.rows, session) if not Path(name).name.startswith("mutation_")]
        return rows + files_with(self.objects, session)


class Client:
    """Asks an application as HTTP would, with one key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self._key = app, key

    def get(self, path: str) -> httpx.Response:
        return self._ask("GET", path)

    def patch(self, path: str, **body: Any) -> httpx.Response:
        return self._ask("PATCH", path, **body)

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            headers = {"Authorization": f"Bearer {self._key}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())


def a_session() -> str:
    """An id that stands nowhere else."""
    return f"session-{secrets.token_hex(8)}"


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
