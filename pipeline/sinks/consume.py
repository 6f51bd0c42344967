"""The loop both sinks run: consume replay.clean, keep what counts, flush when due, commit what is done.

One thread. At least once towards the store, whose guarded writes make it exactly once. Memory is bounded: above
BUFFER_BYTES_MAX, by one record at most, or RECORDS_WAITING_MAX partitions are paused until a flush has made room. A store that is away costs lag,
never loss. A stop writes nothing more, so that it ends promptly whatever the store does: what waits is read again.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.errors import FatalError, PoisonError, RetryableError
from pipeline.observe.ready import notify_ready
from pipeline.settings import Settings
from pipeline.sinks.delivery import (
    Done,
    FlushLimits,
    MovedOnError,
    NeedMore,
    Pending,
    Taken,
    Verdict,
    is_due,
    judge,
    unstorable,
)
from pipeline.sinks.letters import SinkLetters
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.commits import Committed, commit_metadata, read_commit
from pipeline.topics.registry import schema_ids

CONSUME_AT_ONCE = 500
POLL_S = 0.05
BUFFER_BYTES_MAX = 192 << 20
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
BROKER_TIMEOUT_S = 10.0
HOLE_ALARM_S = 30.0
RECORDS_WAITING_MAX = 100_000
TURN_S = 10.0
SLOW_FLUSH_S = 60.0
OPEN_AGAIN_S = 1.0
DOUBT_AGAIN_S = 1.0

log = structlog.get_logger()


class Store(Protocol):
    """What a sink does with what was read. A call may raise RetryableError: it is made again; MovedOnError: the partition
    is opened again first."""

    def open(self, partition: int, committed: Committed | None) -> int:
        """Takes a partition up: the mark, as the store knows it."""

    def flush(self, partition: int, mark: int, batches: list[Taken]) -> Done | NeedMore:
        """Stores batches, whose source offsets begin at mark + 1 and have no hole."""

    def close(self, partition: int) -> None:
        """Lets a partition go; nothing is written any more."""


@dataclass
class _Partition:
    """One assigned partition while we own it."""

    pending: Pending
    wanted_last: int | None = None
    retry_at_s: float = 0.0
    backoff_s: float = BACKOFF_FIRST_S
    hole_since_s: float | None = None
    set_aside: int = 0
    """Records that became dead letters since one was stored."""
    counts: dict[str, int] = field(default_factory=dict)


class CleanReader:
    """Runs one sink until SIGTERM or Ctrl-C."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        store: Store,
        limits: FlushLimits,
        same_topics: Callable[[], None] = lambda: None,
    ) -> None:
        """`same_topics` raises FatalError where the topics are not those that the marks are of."""
        self._settings = settings
        self._same_topics = same_topics
        self._doubt = False
        self._doubt_again_at_s = 0.0
        self._name = name
        self._store = store
        self._limits = limits
        self._letters = SinkLetters(settings, name)
        self._topics = catalogue(settings)
        self._codec = Codecs(self._topics, schema_ids(settings)).clean
        self._partitions: dict[int, _Partition] = {}
        self._opening: dict[int, float] = {}
        self._held: set[int] = set()
        self._stopping = False
        self._consumer: Consumer = clients.consumer(
            settings, group=f"{settings.sink_group}-{name}", client_id=f"replay-sink-{name}"
        )

    def run(self) -> None:
        """Raises FatalError where going on would break a promise; everything not committed is read again then."""
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._stop_soon)
        self._consumer.subscribe(
            [self._topics.clean.name], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        try:
            while not self._stopping:
                self._turn()
        except KafkaException as error:
            raise FatalError(f"the consumer cannot go on: {_name(error)}") from error
        finally:
            self._consumer.close()

    def _stop_soon(self, *_: object) -> None:
        self._stopping = True

    def _turn(self) -> None:
        self._open_assigned()
        for message in self._consumer.consume(self._room(), POLL_S):
            self._receive(message)
        self._settle_doubt()
        if not self._doubt:
            self._flush_due()
        self._hold_back()

    # Kafka → pending

    def _receive(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.fatal():
                raise FatalError(f"the consumer cannot go on: {error.name()}")
            if error.code() != KafkaError._PARTITION_EOF:
                log.warning("consume_error", error=error.name())
            return
        number, offset = message.partition(), message.offset()
        assert number is not None
        assert offset is not None
        owned = self._partitions.get(number)
        if owned is None:
            return  # fetched before the partition was let go
        try:
            batch = self._codec.decode(message.value())
        except PoisonError as poison:
            raise FatalError(
                f"{self._topics.clean.name} partition {number} offset {offset} is not a clean batch ({poison}): "
                "only workers may write there"
            ) from poison
        if batch.epoch != self._settings.epoch:
            self._count(owned, "other_epoch")
            return
        verdict = judge(owned.pending.last, batch)
        if verdict is Verdict.TAKE:
            owned.hole_since_s = None
            owned.pending.add(Taken(batch, offset), time.monotonic())
            return
        self._count(owned, verdict.value)
        self._doubt = True
        if verdict is Verdict.HOLE:
            self._watch_hole(owned, number, batch.source_offset)

    def _settle_doubt(self) -> None:
        """A record that is done already, or comes too early, is a worker's repeat, or of a topic that was made anew:
        nothing is flushed until it is known which."""
        now = time.monotonic()
        if not self._doubt or now < self._doubt_again_at_s:
            return
        self._doubt_again_at_s = now + DOUBT_AGAIN_S
        try:
            self._same_topics()
        except RetryableError as error:
            log.warning("topics_not_compared_yet", why=str(error))
            return
        self._doubt = False

    def _watch_hole(self, owned: _Partition, number: int, offset: int) -> None:
        now = time.monotonic()
        owned.hole_since_s = owned.hole_since_s or now
        if now - owned.hole_since_s > HOLE_ALARM_S:
            owned.hole_since_s = now
            log.error("clean_hole_is_not_filled", partition=number, wanted=owned.pending.last + 1, seen=offset)

    @staticmethod
    def _count(owned: _Partition, what: str) -> None:
        owned.counts[what] = owned.counts.get(what, 0) + 1

    # pending → store

    def _flush_due(self) -> None:
        """Flushes what is due, the longest waiting first, for TURN_S: Kafka must be polled in between, or it takes us
        for dead (max.poll.interval.ms)."""
        began = time.monotonic()
        for number, owned in sorted(self._partitions.items(), key=lambda each: each[1].pending.oldest_s):
            now = time.monotonic()
            if self._stopping or now - began > TURN_S:
                return
            pending, wanted = owned.pending, owned.wanted_last
            due = pending.last >= wanted if wanted is not None else is_due(pending, self._limits, now)
            if due and now >= owned.retry_at_s:
                self._flush(number, owned)
                took_s = time.monotonic() - now
                if took_s > SLOW_FLUSH_S:
                    log.error("flush_was_slow", partition=number, seconds=int(took_s))

    def _flush(self, number: int, owned: _Partition) -> None:
        pending = owned.pending
        if owned.wanted_last is None:
            batches = pending.within(self._limits)
        else:
            batches = pending.up_to(owned.wanted_last) or pending.batches[:1]
        if not batches:
            return
        try:
            flushed = self._store.flush(number, pending.mark, batches)
        except PoisonError as poison:
            self._set_aside(number, owned, batches, poison)
            return
        except MovedOnError as error:
            log.warning("partition_opened_again", partition=number, why=str(error))
            self._let_go(number)
            self._consumer.pause([TopicPartition(self._topics.clean.name, number)])
            self._opening[number] = time.monotonic() + OPEN_AGAIN_S
            return
        except RetryableError as error:
            wait_s = owned.backoff_s * random.uniform(0.5, 1.0)  # noqa: S311
            owned.retry_at_s = time.monotonic() + wait_s
            owned.backoff_s = min(BACKOFF_MAX_S, 2 * owned.backoff_s)
            log.warning("flush_put_off", partition=number, why=str(error), wait_ms=int(wait_s * 1000))
            return
        owned.backoff_s = BACKOFF_FIRST_S
        if isinstance(flushed, NeedMore):
            owned.wanted_last = flushed.last
            return
        owned.wanted_last = None
        rows = sum(each.batch.event_count for each in batches if each.batch.source_last_offset <= flushed.mark)
        owned.set_aside = 0 if rows else owned.set_aside
        resume_at = pending.done(flushed.mark, time.monotonic())
        if resume_at is not None:
            self._commit(number, owned, Committed(resume_at, flushed.mark))
        log.debug("flushed", partition=number, mark=flushed.mark, rows=rows, **owned.counts)

    def _set_aside(self, number: int, owned: _Partition, batches: list[Taken], poison: PoisonError) -> None:
        """What can never be stored becomes a dead letter; the rest of the flush goes in by the next one. The letter is
        acked before the mark can pass: a crash in between writes it twice, never not."""
        where = f"{self._topics.clean.name} partition {number}"
        found = unstorable(batches, poison)
        if not found:
            raise FatalError(f"{where} holds what cannot be stored: {poison}") from poison
        owned.set_aside += len(found)
        limit = self._settings.dead_letters_in_a_row_max
        if limit and owned.set_aside > limit:
            raise FatalError(
                f"{where}: more than {limit} records in a row cannot be stored, the last because of {poison}. This is no "
                "matter of single records: look at the release, the tables and REPLAY_DEAD_LETTERS_IN_A_ROW_MAX"
            ) from poison
        refused = [(each, found[each.batch.source_offset]) for each in batches if each.batch.source_offset in found]
        self._letters.write(number, refused)
        owned.pending.set_aside(found)
        for each, why in refused:
            log.error("dead_letter", partition=number, clean_offset=each.clean_offset, why=str(why))

    def _commit(self, number: int, owned: _Partition, committed: Committed) -> None:
        where = TopicPartition(
            self._topics.clean.name,
            number,
            committed.clean_offset,
            metadata=commit_metadata(self._settings.epoch, committed.mark),
        )
        try:
            self._consumer.commit(offsets=[where], asynchronous=False)
        except KafkaException as error:
            # Fenced (the partition is somebody else's by now; `_revoked` follows) or the broker is away: what was stored
            # is stored, and whoever owns the partition next finds it done.
            if error.args[0].fatal():
                raise
            log.warning("commit_failed", partition=number, error=_name(error))

    # memory

    def _room(self) -> int:
        """How many records may be taken at once: as many as fit even if each is as large as one can be."""
        left = BUFFER_BYTES_MAX - sum(owned.pending.payload_bytes for owned in self._partitions.values())
        return max(1, min(CONSUME_AT_ONCE, left // self._settings.clean_bytes_max))

    def _hold_back(self) -> None:
        """Pauses what need not be read now. A partition whose store wants more is never held: only more can free it."""
        waiting = sum(owned.pending.payload_bytes for owned in self._partitions.values())
        records = sum(len(owned.pending.batches) for owned in self._partitions.values())
        full = waiting >= BUFFER_BYTES_MAX or records >= RECORDS_WAITING_MAX
        held = {number for number, owned in self._partitions.items() if full and owned.wanted_last is None}
        if held == self._held:
            return
        self._consumer.pause(self._places(held - self._held))
        self._consumer.resume(self._places(self._held - held))
        self._held = held
        log.info("consumption_held", partitions=sorted(held), waiting_bytes=waiting, waiting_records=records)

    def _places(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topics.clean.name, each) for each in numbers]

    # assignment

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Takes partitions without reading yet: they are opened in the loop, where a store that is away can be retried."""
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)
        for each in partitions:
            self._opening[each.partition] = 0.0
        if not partitions and not self._opening:
            notify_ready()

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What was not flushed is read again by the next owner."""
        for each in partitions:
            self._opening.pop(each.partition, None)
            self._let_go(each.partition)

    def _let_go(self, number: int) -> None:
        self._held.discard(number)
        if self._partitions.pop(number, None) is not None:
            self._store.close(number)

    def _open_assigned(self) -> None:
        now = time.monotonic()
        due = [number for number, at in self._opening.items() if now >= at]
        for number in due:
            if self._stopping:
                return
            try:
                if number == due[0]:
                    self._same_topics()
                self._open(number)
            except RetryableError as error:
                log.warning("partition_not_opened_yet", partition=number, why=str(error))
                self._opening.update(dict.fromkeys(due[due.index(number) :], time.monotonic() + OPEN_AGAIN_S))
                return
            del self._opening[number]
            if not self._opening:
                notify_ready()

    def _open(self, number: int) -> None:
        where = TopicPartition(self._topics.clean.name, number)
        try:
            found = self._consumer.committed([where], timeout=BROKER_TIMEOUT_S)[0]
            low, high = self._consumer.get_watermark_offsets(where, timeout=BROKER_TIMEOUT_S)
        except KafkaException as error:
            raise _not_now(error) from error
        committed = read_commit(found.offset, found.metadata, self._settings.epoch)
        start = committed.clean_offset if committed else low
        if not low <= start <= high:
            raise FatalError(
                f"{where.topic} partition {number}: committed {start}, the log has {low}..{high}: retention overtook the "
                "sink, or the topic was made anew; reprocess under the next REPLAY_EPOCH"
            )
        mark = self._store.open(number, committed)
        try:
            self._consumer.seek(TopicPartition(where.topic, number, start))
            self._consumer.resume([where])
        except KafkaException as error:
            # An assignment is under way for a moment after `incremental_assign`: to seek then is an erroneous state.
            raise _not_now(error) from error
        self._partitions[number] = _Partition(Pending(mark))
        log.info("partition_opened", partition=number, mark=mark, clean_offset=start)


def _name(error: KafkaException) -> str:
    found: str = error.args[0].name()
    return found


def _not_now(error: KafkaException) -> FatalError | RetryableError:
    kind = FatalError if error.args[0].fatal() else RetryableError
    return kind(f"the broker or the consumer cannot do it now ({_name(error)})")
