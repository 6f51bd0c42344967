"""How far worker and sinks have come, and what they must have passed before anything is deleted.

Past an offset of replay.batches means: the worker has committed it (its outputs are acked), the warehouse sink has a done
claim on it, the object sink has committed it, and the session reader has read what the worker had told by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.erasure.blocks import Session
from pipeline.erasure.rows import are
from pipeline.errors import RetryableError
from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.commits import read_commit

BROKER_TIMEOUT_S = 10.0

Offsets = Mapping[int, int]
"""By partition."""


class Positions:
    """Asks Kafka and the warehouse; joins no group. Every method may raise RetryableError."""

    def __init__(self, settings: Settings, warehouse: ClickHouse) -> None:
        self._epoch = settings.epoch
        self._topics = catalogue(settings)
        self._warehouse = warehouse
        self._worker = _asker(settings, settings.worker_group)
        self._objects = _asker(settings, f"{settings.sink_group}-objects")
        self._sessions = _asker(settings, f"{settings.sink_group}-sessions")

    def close(self) -> None:
        for each in (self._worker, self._objects, self._sessions):
            with suppress(KafkaException):
                each.close()

    def raw_ends(self) -> dict[int, int]:
        """Where each partition of replay.batches ends now; those that hold nothing are left out: there is
        nothing to pass in them."""
        return self._ends(self._topics.batches.name, self._topics.batches.partitions)

    def session_ends(self) -> dict[int, int]:
        """The same of replay.sessions."""
        return self._ends(self._topics.sessions.name, self._topics.sessions.partitions)

    def worker_behind(self, wanted: Offsets) -> str:
        """Where the worker has not committed up to these offsets (excluded): in words, or nothing."""
        committed = self._committed(self._worker, self._topics.batches.name, wanted)
        return _behind("the worker", wanted, {each.partition: each.offset for each in committed})

    def sinks_behind(self, wanted: Offsets) -> str:
        """The same of the two sinks."""
        done = {
            partition: last + 1
            for partition, last in self._warehouse.rows(
                "SELECT source_partition, max(last) FROM {db}.claims WHERE epoch = {epoch:UInt32} AND state = 'done' "
                "GROUP BY source_partition",
                epoch=self._epoch,
            )
        }
        committed = [
            (each.partition, read_commit(each.offset, each.metadata, self._epoch))
            for each in self._committed(self._objects, self._topics.clean.name, wanted)
        ]
        packed = {partition: found.mark + 1 for partition, found in committed if found}
        return _behind("the warehouse sink", wanted, done) or _behind("the object sink", wanted, packed)

    def not_forgotten(self, places: Mapping[Session, tuple[int, int]]) -> str:
        """Whether a session's row does not say yet that it is erased, by the request at its place or a later one: in words,
        or nothing. The worker may never have taken a request: retention was faster, or it met a bug."""
        told = {
            (tenant, session_id): revision
            for tenant, session_id, revision in self._warehouse.rows(
                "SELECT tenant, session_id, max(revision) FROM {db}.sessions "
                f"WHERE {are(places)} AND close_reason = 'erased' GROUP BY 1, 2"
            )
        }
        left = sum(told.get(session, -1) < 2 * offset for session, (_, offset) in places.items())
        return f"the worker has not told of {left} sessions that they are erased" if left else ""

    def sessions_behind(self, wanted: Offsets) -> str:
        """The same of the reader of replay.sessions, by that topic's offsets."""
        committed = self._committed(self._sessions, self._topics.sessions.name, wanted)
        return _behind("the session reader", wanted, {each.partition: each.offset for each in committed})

    def _ends(self, topic: str, partitions: int) -> dict[int, int]:
        try:
            found = {
                number: self._worker.get_watermark_offsets(TopicPartition(topic, number), timeout=BROKER_TIMEOUT_S)
                for number in range(partitions)
            }
        except KafkaException as error:
            raise _away(error) from error
        return {number: end for number, (begin, end) in found.items() if begin < end}

    @staticmethod
    def _committed(asker: Consumer, topic: str, wanted: Offsets) -> list[TopicPartition]:
        if not wanted:
            return []
        try:
            found: list[TopicPartition] = asker.committed(
                [TopicPartition(topic, number) for number in wanted], timeout=BROKER_TIMEOUT_S
            )
        except KafkaException as error:
            raise _away(error) from error
        return found


def _asker(settings: Settings, group: str) -> Consumer:
    return clients.consumer(settings, group=group, client_id="replay-eraser")


def _behind(who: str, wanted: Offsets, reached: Offsets) -> str:
    for number, offset in wanted.items():
        at = max(reached.get(number, 0), 0)
        if at < offset:
            return f"{who} is at {at} of {offset} in partition {number}"
    return ""


def _away(error: KafkaException) -> RetryableError:
    return RetryableError(f"Kafka cannot be asked how far worker and sinks are ({error.args[0].name()})")
