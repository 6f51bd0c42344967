"""The loop of both sinks on a real broker, with a store that answers as told: retry, reopen, hold back, stop."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition

from pipeline.errors import RetryableError
from pipeline.settings import Settings
from pipeline.sinks import consume
from pipeline.sinks.consume import CleanReader
from pipeline.sinks.delivery import NOTHING_DONE, Done, FlushLimits, MovedOnError, NeedMore, Taken
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.commits import Committed
from pipeline.topics.registry import schema_ids
from tests.unit.sinks import clean

BATCHES = 60
LAST = BATCHES - 1
LIMIT_S = 60.0
AT_ONCE = FlushLimits(payload_bytes=1 << 40, age_ms=0)

Answer = Callable[[int, int], Done | NeedMore]
"""(mark, the last source offset that is there) → what a flush gives."""


class Told:
    """A store whose first flushes answer as told and the rest as one that is well; ends the process's loop by SIGTERM
    when all is stored, or when `stop_at` flushes were asked for."""

    def __init__(self, *answers: Answer, mark: int = NOTHING_DONE, stop_at: int | None = None) -> None:
        self._answers, self.mark, self._stop_at = list(answers), mark, stop_at
        self.opened: list[Committed | None] = []
        self.closed = 0
        self.asked: list[tuple[int, list[int], int]] = []
        """(mark, source offsets, payload bytes) of every flush."""
        self.stored: list[int] = []

    def open(self, partition: int, committed: Committed | None) -> int:
        if partition == 0:
            self.opened.append(committed)
        return self.mark if partition == 0 else NOTHING_DONE

    def flush(self, partition: int, mark: int, batches: list[Taken]) -> Done | NeedMore:
        offsets = [each.batch.source_offset for each in batches]
        self.asked.append((mark, offsets, sum(len(each.batch.payload) for each in batches)))
        if len(self.asked) == self._stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        answer = self._answers.pop(0)(mark, offsets[-1]) if self._answers else Done(offsets[-1])
        if isinstance(answer, Done):
            self.stored += [offset for offset in offsets if offset <= answer.mark]
            self.mark = answer.mark
            if self.mark >= LAST:
                os.kill(os.getpid(), signal.SIGTERM)
        return answer

    def close(self, partition: int) -> None:
        self.closed += partition == 0


@pytest.fixture
def settings(with_topics: Settings) -> Iterator[Settings]:
    """Topics whose partition 0 of replay.clean holds BATCHES; the signal handlers are put back afterwards."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    _produce(with_topics, b"")
    yield with_topics
    for each, handler in before.items():
        signal.signal(each, handler)


def _produce(settings: Settings, payload: bytes, *, partition: int = 0) -> None:
    topics = catalogue(settings)
    codec = Codecs(topics, schema_ids(settings)).clean
    producer = clients.producer(settings, client_id="test")
    for offset in range(BATCHES):
        value = codec.encode(clean.batch(offset, payload=payload, source_partition=partition))
        producer.produce(topics.clean.name, value, b"acme:s1", partition)
    assert producer.flush(30) == 0


def run(settings: Settings, store: Told, limits: FlushLimits = AT_ONCE) -> None:
    """Until the store ends it, or LIMIT_S are over, which the assertions then show."""
    reader = CleanReader(settings, name="told", store=store, limits=limits)
    timer = threading.Timer(LIMIT_S, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        reader.run()
    finally:
        timer.cancel()


def committed(settings: Settings, partition: int = 0) -> int:
    """The clean offset that the group goes on reading at; it equals the source offset in these tests."""
    consumer = clients.consumer(settings, group=f"{settings.sink_group}-told", client_id="test")
    place = TopicPartition(catalogue(settings).clean.name, partition)
    try:
        return int(consumer.committed([place], timeout=10)[0].offset)
    finally:
        consumer.close()


def away(mark: int, last: int) -> Done:
    raise RetryableError("told to be away")


def moved(mark: int, last: int) -> Done:
    raise MovedOnError("told to have moved")


def test_all_is_stored_once_in_order_and_committed(settings: Settings) -> None:
    store = Told()
    run(settings, store)
    assert store.stored == list(range(BATCHES))
    assert committed(settings) == BATCHES
    assert store.closed == 1


def test_what_a_store_that_is_away_could_not_take_is_offered_again_from_the_same_mark(settings: Settings) -> None:
    store = Told(away, away)
    run(settings, store)
    assert [mark for mark, _, _ in store.asked[:3]] == [NOTHING_DONE] * 3
    assert store.asked[2][1][: len(store.asked[0][1])] == store.asked[0][1]
    assert store.stored == list(range(BATCHES))
    assert len(store.opened) == 1


def test_a_store_that_moved_on_is_opened_again_and_read_from_its_mark(settings: Settings) -> None:
    """Somebody else stored up to 19 meanwhile: those are skipped, none after is."""

    def somebody_was_faster(mark: int, last: int) -> Done:
        store.mark = 19
        return moved(mark, last)

    store = Told(somebody_was_faster)
    run(settings, store)
    assert len(store.opened) == 2
    assert store.stored == list(range(20, BATCHES))


def test_a_claim_that_reaches_further_is_read_to_exactly_there(settings: Settings) -> None:
    store = Told(lambda mark, last: NeedMore(40), mark=NOTHING_DONE)
    run(settings, store, FlushLimits(payload_bytes=1 << 40, age_ms=0, records=10))
    assert store.asked[1][:2] == (NOTHING_DONE, list(range(41)))
    assert store.stored == list(range(BATCHES))


class SlowAtTheEnd(Told):
    """Away until two partitions wait for it; then told to stop while it slowly stores the one that waited longest."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[int] = []

    def flush(self, partition: int, mark: int, batches: list[Taken]) -> Done | NeedMore:
        self.order.append(partition)
        if len(set(self.order)) < 2 or partition != self.order[0]:
            raise RetryableError("told to be away")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * consume.BACKOFF_MAX_S)  # the store's slowness: the other partition is due by then
        return Done(batches[0].batch.source_last_offset)


def test_a_stop_finishes_the_flush_that_runs_and_begins_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume, "BACKOFF_MAX_S", 0.4)
    _produce(settings, b"", partition=1)
    store = SlowAtTheEnd()
    run(settings, store)
    assert store.order.count(store.order[0]) >= 2
    assert store.order[-1] == store.order[0]
    assert committed(settings, store.order[0]) == 1
    assert committed(settings, 1 - store.order[0]) == OFFSET_INVALID


def test_the_next_owner_goes_on_where_the_commit_says(settings: Settings) -> None:
    run(settings, Told(lambda mark, last: Done(9), stop_at=1), FlushLimits(payload_bytes=1 << 40, age_ms=0, records=10))
    store = Told(mark=9)
    run(settings, store)
    assert store.opened == [Committed(10, 9)]
    assert store.stored == list(range(10, BATCHES))


def test_what_waits_for_a_store_that_is_away_is_bounded_in_bytes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BATCHES × 100 KB are on the topic, 1 MiB may wait; one record more is the most that ever does."""
    payload_bytes = 100_000
    small = dataclasses.replace(settings, topic_prefix=f"big-{settings.topic_prefix}", batch_bytes_max=payload_bytes)
    clients.apply(clients.admin(small), catalogue(small))
    _produce(small, b"x" * payload_bytes)
    monkeypatch.setattr(consume, "BUFFER_BYTES_MAX", 1 << 20)
    store = Told(*[away] * 6)
    run(small, store)
    assert max(waiting for _, _, waiting in store.asked) <= (1 << 20) + payload_bytes
    assert max(waiting for _, _, waiting in store.asked) > (1 << 20) - 2 * payload_bytes
    assert store.stored == list(range(BATCHES))
