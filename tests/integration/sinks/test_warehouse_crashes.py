"""The warehouse sink dies at each of its statements in turn; whoever takes over leaves each event exactly once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import secrets
from collections import Counter

import pytest

from pipeline.errors import RetryableError
from pipeline.settings import Settings
from pipeline.sinks.delivery import Done, NeedMore, Taken
from pipeline.sinks.warehouse import WarehouseStore
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.migrate import migrate
from tests.integration.sinks.crashes import CrashError, Dying
from tests.unit.sinks import clean
from tests.unit.sinks.clean import AUGUST_MS, SEPTEMBER_MS

batch = functools.partial(clean.batch, retention="9y")  # or the rows go as soon as they come
clicks = functools.partial(clean.clicks, retention="9y")

#: Three batches of one claim; they lie in two months, and one of them has nothing left.
BATCHES = [clicks(0, [AUGUST_MS, SEPTEMBER_MS]), batch(1), clicks(2, [SEPTEMBER_MS], session_id="s2")]
SEQS = [0, 1, 2 << 20]
MINUTES = {(AUGUST_MS // 60_000 * 60): 1, (SEPTEMBER_MS // 60_000 * 60): 2}
STEPS_MAX = 40


def taken(batches: list) -> list[Taken]:
    return [Taken(each, each.source_offset) for each in batches]


def own_database(engine: Settings) -> Settings:
    settings = dataclasses.replace(engine, warehouse_database=f"t_{secrets.token_hex(4)}")
    migrate(settings)
    return settings


def dying(settings: Settings, at: int, *, answer_lost: bool) -> WarehouseStore:
    """A store whose client dies at its `at`-th call. Its stage is given the same client."""
    store = WarehouseStore(settings)
    client = Dying(store._warehouse, at, answer_lost=answer_lost)
    store._warehouse = store._events._warehouse = client  # type: ignore[assignment]
    return store


def take_over(settings: Settings, batches: list) -> int:
    """What a new owner does: open, read on from the mark, flush until all is done."""
    store = WarehouseStore(settings)
    mark = store.open(0, None)
    while rest := [each for each in batches if each.source_last_offset > mark]:
        flushed = store.flush(0, mark, taken(rest))
        assert isinstance(flushed, Done)
        mark = flushed.mark
    store.end()
    return mark


def must_be_whole(settings: Settings) -> None:
    warehouse = ClickHouse(settings)
    assert sorted(seq for (seq,) in warehouse.rows("SELECT seq FROM {db}.events")) == SEQS
    minutes = warehouse.rows("SELECT toUnixTimestamp(minute), sum(events) FROM {db}.minutes FINAL GROUP BY 1")
    assert dict(minutes) == MINUTES
    claims = Counter(warehouse.rows("SELECT first, last, state FROM {db}.claims"))
    assert claims == Counter([(0, 2, "claim"), (0, 2, "done")])


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_crash_at_any_statement_leaves_each_event_once(engine: Settings, answer_lost: bool) -> None:
    crashed = 0
    for at in itertools.count(1):
        assert at < STEPS_MAX
        settings = own_database(engine)
        store = dying(settings, at, answer_lost=answer_lost)
        try:
            mark = store.open(0, None)
            store.flush(0, mark, taken(BATCHES))
        except CrashError:
            crashed += 1
        else:
            break
        assert take_over(settings, BATCHES) == 2
        must_be_whole(settings)
    assert crashed >= 6


def test_a_zombie_that_wakes_after_its_successor_changes_nothing(engine: Settings) -> None:
    settings = own_database(engine)
    zombie = WarehouseStore(settings)
    mark = zombie.open(0, None)
    assert take_over(settings, BATCHES) == 2
    for first in range(3):  # it still believes that nothing is done, and holds less than its successor had
        with contextlib.suppress(RetryableError):
            zombie.flush(0, mark + first, taken(BATCHES[first : first + 1]))
    must_be_whole(settings)


def test_the_claim_of_whoever_was_first_binds_the_next(engine: Settings) -> None:
    settings = own_database(engine)
    first = dying(settings, 4, answer_lost=True)
    with pytest.raises(CrashError):
        first.flush(0, first.open(0, None), taken(BATCHES))
    assert ClickHouse(settings).rows("SELECT first, last, state FROM {db}.claims") == [(0, 2, "claim")]
    second = WarehouseStore(settings)
    mark = second.open(0, None)
    assert second.flush(0, mark, taken(BATCHES[:1])) == NeedMore(2)
    assert second.flush(0, mark, taken([*BATCHES, clicks(3)])) == Done(2)
    must_be_whole(settings)


def test_an_erased_sessions_rows_do_not_come_back(engine: Settings) -> None:
    settings = own_database(engine)
    ClickHouse(settings).command(
        "INSERT INTO {db}.erasures (tenant, session_id, epoch, source_partition, source_offset) VALUES ('acme', 's1', 1, 0, 5)"
    )
    take_over(settings, [clicks(0), clicks(1, session_id="s2"), clicks(6)])
    sessions = ClickHouse(settings).rows("SELECT session_id, source_offset FROM {db}.events ORDER BY source_offset")
    assert sessions == [("s2", 1), ("s1", 6)]
