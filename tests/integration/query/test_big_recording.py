"""A long session through a real API process: its memory is that of a short one."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from pipeline.keys import KeyFile
from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports, is_taken
from pipeline.model.batches import SessionUpdate
from pipeline.settings import Settings
from pipeline.sinks.rows import session_rows
from pipeline.storage.blobs import open_store
from pipeline.storage.blocks import Place, pack
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.index import BlockIndex
from tests.support import eventually
from tests.unit.sinks.clean import batch

NOW_MS = time.time_ns() // 1_000_000
EVENTS_A_BLOCK = 2_000
EVENT_BYTES = 1_000
BLOCK_BYTES = EVENTS_A_BLOCK * EVENT_BYTES
SHORT_BLOCKS, LONG_BLOCKS = 10, 50
"""20 MB and 100 MB."""
GROWTH_MAX_BYTES = 16 << 20
PLACE = Place("replay.batches", 1, 0)


def store_session(settings: Settings, session_id: str, blocks: int) -> None:
    """An object a block, by the parts of the sink; random enough that it stays a tenth when it is compressed."""
    store, warehouse = open_store(settings), ClickHouse(settings)
    index = BlockIndex(warehouse)
    first_offset = 0 if session_id == "short" else 1_000
    for number in range(blocks):
        offset, start = first_offset + number, NOW_MS + number * EVENTS_A_BLOCK
        events = [
            (
                "console",
                start + n,
                {"level": "info", "args": [os.urandom(50).hex() + "all the same " * (EVENT_BYTES // 13 - 12)]},
            )
            for n in range(EVENTS_A_BLOCK)
        ]
        packed = pack(
            PLACE, "30d", offset, [batch(offset, events, tenant="default", session_id=session_id, source_at=NOW_MS)]
        )
        assert store.put_if_absent(packed.manifest.object, packed.body)
        index.insert(packed.manifest)
    ended = NOW_MS + blocks * EVENTS_A_BLOCK
    update = SessionUpdate(
        tenant="default", session_id=session_id, part="1", revision=2, status="open", close_reason=None,
        source="portable", user_id="anonymous", started_at=NOW_MS, ended_at=ended, duration_ms=1, active_ms=1, events=1,
        clicks=0, rage_clicks=0, inputs=0, scrolls=0, mouse_moves=0, navigations=0, console_errors=0, errors=0,
        throttled=0, redacted=0, late=0, first_url="", last_url="", urls=(), user_agent="", viewport_width=1,
        viewport_height=1, retention="30d", epoch=1, source_partition=0,
    )  # fmt: skip
    warehouse.insert("sessions", session_rows([(update, NOW_MS)]))
    index.close()
    warehouse.close()


@pytest.fixture
def api(with_tables: Settings) -> Iterator[tuple[Settings, psutil.Process]]:
    settings = dataclasses.replace(with_tables, api_port=free_ports(1)[0])
    KeyFile(settings.keys).ensure()
    command = [sys.executable, "-m", "pipeline", "api"]
    running = process.start(command, child_environ(settings), settings.home / "api.log")
    try:
        eventually(lambda: is_taken(settings.api_port), within_s=30, why="the API listens")
        yield settings, psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait(10)


def served(settings: Settings, session_id: str, form: str) -> int:
    """Bytes of an answer that is read as it comes and not kept."""
    with httpx.stream(
        "GET", f"http://127.0.0.1:{settings.api_port}/v1/sessions/{session_id}/recording", params={"format": form},
        headers={"Authorization": f"Bearer {KeyFile(settings.keys).first().read}"}, trust_env=False, timeout=60,
    ) as answer:  # fmt: skip
        assert answer.status_code == 200
        return sum(len(chunk) for chunk in answer.iter_bytes())


def peak_bytes(running: psutil.Process) -> int:
    """The most that the process ever held (VmHWM, in kB)."""
    with open(f"/proc/{running.pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told by /proc")
def test_memory_does_not_grow_with_the_session(api) -> None:
    settings, running = api
    store_session(settings, "short", SHORT_BLOCKS)
    store_session(settings, "long", LONG_BLOCKS)
    assert served(settings, "short", "portable") > SHORT_BLOCKS * BLOCK_BYTES
    after_short = peak_bytes(running)
    for form in ("portable", "ndjson"):
        assert served(settings, "long", form) > LONG_BLOCKS * BLOCK_BYTES
    assert peak_bytes(running) - after_short < GROWTH_MAX_BYTES


def test_a_store_that_fails_is_a_503_before_the_answer_began_and_breaks_it_off_later(api) -> None:
    settings, _ = api
    store_session(settings, "short", 3)
    objects = [settings.home / "objects" / key for key in open_store(settings).keys("") if key.endswith(".jsonl.zst")]
    cannot_be_read(objects[-1])
    with pytest.raises(httpx.RemoteProtocolError):  # chunks came, the end of the body did not
        served(settings, "short", "ndjson")
    cannot_be_read(objects[0])
    with pytest.raises(AssertionError, match="503"):
        served(settings, "short", "ndjson")


def cannot_be_read(path: Path) -> None:
    """A link to itself: the file is there, and reading it fails."""
    path.unlink()
    path.symlink_to(path)
