"""Crash equivalence: whatever is killed while recordings flow, the stores end up as one uninterrupted run leaves them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

from pipeline.keys import KeyFile
from pipeline.load import traffic
from pipeline.load.recordings import bundled
from pipeline.load.senders import Sender
from pipeline.local.stack import Stack
from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from tests.e2e import accounts
from tests.e2e.conftest import settings_for
from tests.support import eventually

KILLED = ("worker", "sink-warehouse", "sink-objects", "warehouse", "kafka", "capture", "worker")
BACK_LIMIT_S = 60.0
ROUNDS_MAX = 60
BATCHES_BETWEEN = 30


class Flow:
    """Sends the bundled recordings over and over until told to stop, as clients that retry."""

    def __init__(self, settings: Settings) -> None:
        keys = KeyFile(settings.keys).first()
        self._sender = Sender(settings, tenant=keys.tenant, write_key=keys.write)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flow")
        self.failed: BaseException | None = None

    @property
    def batches(self) -> int:
        return self._sender.sent.batches

    @property
    def events(self) -> int:
        return self._sender.sent.events

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(accounts.ARRIVAL_LIMIT_S)
        self._sender.close()

    def _run(self) -> None:
        bundle = bundled()
        try:
            for number in range(ROUNDS_MAX):
                if self._stop.is_set():
                    return
                now = time.time_ns() // 1_000_000
                self._sender.send(traffic.plan(bundle, run_id=f"flow{number}", now_ms=now, copies=1))
        except BaseException as error:
            self.failed = error


def test_stores_equal_the_reference_run_after_every_part_was_killed(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "home")
    with Stack(settings) as stack:
        flow = Flow(settings)
        flow.start()
        try:
            for part in KILLED:
                before = flow.batches
                eventually(
                    lambda before=before: flow.batches >= before + BATCHES_BETWEEN or flow.failed,
                    within_s=BACK_LIMIT_S,
                    why="recordings flow",
                )
                old = stack.kill(part)
                eventually(
                    lambda part=part, old=old: any(
                        each.name == part and each.ready and each.pid != old for each in stack.status()
                    ),
                    within_s=BACK_LIMIT_S,
                    why=f"{part} is back",
                )
        finally:
            flow.stop()
        assert flow.failed is None
        accounts.arrived(settings)
        _must_equal_the_reference(settings, accepted=flow.events)


def _must_equal_the_reference(settings: Settings, *, accepted: int) -> None:
    wanted = accounts.reference(settings)
    assert accounts.clean_log(settings) == wanted.clean

    rows = accounts.stored_rows(settings)
    twice = [where for where, n in Counter(where for where, _ in rows).items() if n > 1]
    assert twice == []
    assert dict(rows) == wanted.rows

    assert accounts.stored_lines(settings) == Counter(wanted.rows.values())
    indexed = ClickHouse(settings).value("SELECT sum(event_count) FROM {db}.blocks")
    assert indexed == len(wanted.rows)

    assert accounts.stored_sessions(settings) == {key: accounts.told(update) for key, update in wanted.sessions.items()}
    by_minute = Counter((row.at_ms // 60_000 * 60, row.type) for row in wanted.rows.values())
    assert accounts.minutes(settings) == by_minute

    sums = Counter()
    for clean in wanted.clean.values():
        parts = clean.event_count + clean.throttled + clean.repeated + clean.erased + clean.dead_lettered
        assert clean.received_events == parts
        sums["received"] += clean.received_events
    # A retry whose first try had reached Kafka is a batch more on the topic than were acknowledged.
    assert sums["received"] >= accepted
