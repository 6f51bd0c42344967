"""What arrived where, read as an outsider would: a plain consumer, SQL over HTTP, and the objects' own lines."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import zstandard
from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from pipeline.errors import ReplayError, RetryableError
from pipeline.model.batches import CleanBatch, SessionUpdate
from pipeline.settings import Settings
from pipeline.storage.blobs import open_store
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics import clients
from pipeline.topics.catalogue import Topic, catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids

READ_TIMEOUT_S = 30.0
WATCH_EVERY_S = 0.05


@dataclass
class CleanSums:
    """Sums over the clean records of one run, each source offset once, by the reading rule of the topic."""

    records: int = 0
    received: int = 0
    stored: int = 0
    throttled: int = 0
    repeated: int = 0
    erased: int = 0
    dead_lettered: int = 0
    redacted: Counter[str] = field(default_factory=Counter)
    received_at: dict[tuple[int, int], int] = field(default_factory=dict)
    """(source partition, source offset) → ms when capture received it, for batches that stored something."""


def read_topic(settings: Settings, topic: Topic) -> Iterator[Any]:
    """Every message of a topic from its beginning to its end as of now. Raises RetryableError where that takes too long."""
    reader = clients.consumer(settings, group="replay-demo-reader", client_id="replay-demo")
    try:
        left = set(range(topic.partitions))
        reader.assign([TopicPartition(topic.name, each, OFFSET_BEGINNING) for each in left])
        until = time.monotonic() + READ_TIMEOUT_S
        while left:
            if time.monotonic() > until:
                raise RetryableError(f"{topic.name} was not read to its end within {READ_TIMEOUT_S:.0f} s")
            for message in reader.consume(500, 0.2):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
    finally:
        reader.close()


def clean_sums(settings: Settings, run_id: str) -> CleanSums:
    """The counts of this run's sessions. A record at or below what was taken of its partition is a worker's repeat."""
    topics = catalogue(settings)
    codec = Codecs(topics, schema_ids(settings)).clean
    sums = CleanSums()
    taken: dict[int, int] = {}
    for message in read_topic(settings, topics.clean):
        batch: CleanBatch = codec.decode(message.value())
        if batch.source_offset <= taken.get(message.partition(), -1):
            continue
        taken[message.partition()] = batch.source_last_offset
        if not batch.session_id.startswith(run_id):
            continue
        sums.records += 1
        sums.received += batch.received_events
        sums.stored += batch.event_count
        sums.throttled += batch.throttled
        sums.repeated += batch.repeated
        sums.erased += batch.erased
        sums.dead_lettered += batch.dead_lettered
        sums.redacted.update(batch.redacted)
        if batch.event_count:
            sums.received_at[batch.source_partition, batch.source_offset] = batch.received_at
    return sums


def session_updates(settings: Settings, run_id: str) -> dict[tuple[str, str], SessionUpdate]:
    """The last update of each part of this run's sessions."""
    topics = catalogue(settings)
    codec = Codecs(topics, schema_ids(settings)).sessions
    last: dict[tuple[str, str], SessionUpdate] = {}
    for message in read_topic(settings, topics.sessions):
        update: SessionUpdate = codec.decode(message.value())
        key = (update.session_id, update.part)
        if update.session_id.startswith(run_id) and (key not in last or update.revision >= last[key].revision):
            last[key] = update
    return last


@dataclass
class Rows:
    """What ClickHouse holds of a run."""

    events: int
    distinct: int
    by_type: dict[str, int]
    sessions: int
    blocks: int
    block_events: int
    minutes: int


class Warehouse:
    """The run's rows, by SQL."""

    def __init__(self, settings: Settings) -> None:
        self._client = ClickHouse(settings)

    def rows(self, run_id: str) -> Rows:
        by_type = dict(
            self._ask(
                "SELECT type, count() FROM {db}.events WHERE startsWith(session_id, {run:String}) GROUP BY type", run_id
            )
        )
        distinct = self._one(
            "SELECT uniqExact(epoch, source_partition, source_offset, event_index) FROM {db}.events "
            "WHERE startsWith(session_id, {run:String})",
            run_id,
        )
        sessions = self._one(
            "SELECT count() FROM {db}.sessions FINAL WHERE startsWith(session_id, {run:String})", run_id
        )
        blocks = self._ask(
            "SELECT count(), sum(event_count) FROM {db}.blocks WHERE startsWith(session_id, {run:String})", run_id
        )[0]
        minutes = self._one("SELECT sum(events) FROM {db}.minutes FINAL", run_id)
        return Rows(sum(by_type.values()), distinct, by_type, sessions, int(blocks[0]), int(blocks[1]), minutes)

    def object_keys(self, run_id: str) -> list[str]:
        found = self._ask("SELECT DISTINCT object FROM {db}.blocks WHERE startsWith(session_id, {run:String})", run_id)
        return sorted(row[0] for row in found)

    def new_offsets(self, run_id: str, since: dict[int, int]) -> list[tuple[int, int]]:
        """(partition, source offset) of the run's rows above what was seen of each partition."""
        below = " OR ".join(
            ["source_partition NOT IN ({})".format(",".join(map(str, since)) or "-1")]
            + [f"(source_partition = {each} AND source_offset > {offset})" for each, offset in since.items()]
        )
        sql = f"SELECT DISTINCT source_partition, source_offset FROM {{db}}.events WHERE startsWith(session_id, {{run:String}}) AND ({below})"
        return [(int(row[0]), int(row[1])) for row in self._ask(sql, run_id)]

    def _ask(self, sql: str, run_id: str) -> list[tuple[Any, ...]]:
        return self._client.rows(sql, run=run_id)

    def _one(self, sql: str, run_id: str) -> int:
        return int(self._ask(sql, run_id)[0][0])


@dataclass
class Lines:
    """What the replay objects hold of a run, read whole, as `zstd -dc` does."""

    objects: int = 0
    bytes: int = 0
    events: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    found_secrets: int = 0


def object_lines(settings: Settings, keys: list[str], run_id: str, secrets: list[str]) -> Lines:
    """Counts the run's lines, and how often one of `secrets` stands in the value of an input or in a submitted form."""
    store = open_store(settings)
    lines = Lines(objects=len(keys))
    for key in keys:
        body, _etag = store.get(key)
        lines.bytes += len(body)
        text = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
        for line in text.splitlines():
            event = json.loads(line)
            if event["session_id"].startswith(run_id):
                lines.events += 1
                lines.by_type[str(event["type"])] += 1
                if event["type"] in {"input", "submit"}:
                    lines.found_secrets += sum(secret in line.decode() for secret in secrets)
    return lines


class FreshnessWatch:
    """Asks ClickHouse every 50 ms which batches of a run can be queried, and notes when each was seen first.

    The wait for the next question is part of the figure, so it errs to the slow side.
    """

    def __init__(self, settings: Settings, run_id: str) -> None:
        self._warehouse = Warehouse(settings)
        self._run_id = run_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="freshness", daemon=True)
        self.seen_at: dict[tuple[int, int], int] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(READ_TIMEOUT_S)

    def _watch(self) -> None:
        highest: dict[int, int] = {}
        while not self._stop.wait(WATCH_EVERY_S):
            try:
                new = self._warehouse.new_offsets(self._run_id, highest)
            except ReplayError:
                continue  # the warehouse may be killed on purpose while we watch
            now = time.time_ns() // 1_000_000
            for partition, offset in new:
                self.seen_at.setdefault((partition, offset), now)
                highest[partition] = max(offset, highest.get(partition, -1))


def freshness_ms(received_at: dict[tuple[int, int], int], seen_at: dict[tuple[int, int], int]) -> list[int]:
    """Sorted milliseconds from capture's receipt to the first successful query, one a batch."""
    return sorted(seen_at[each] - received_at[each] for each in received_at.keys() & seen_at.keys())


def quantile(ordered: list[int], share: float) -> int:
    """The smallest value that at least `share` of the ordered values do not exceed; 0 of an empty list."""
    if not ordered:
        return 0
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
