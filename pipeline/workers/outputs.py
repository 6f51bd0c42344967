"""The worker's producer: in order, idempotent, and never silent about a delivery that failed."""

from __future__ import annotations

from confluent_kafka import KafkaError, Message

from pipeline.errors import FatalError
from pipeline.model.batches import CleanBatch, DeadLetter, SessionUpdate, session_key
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import Catalogue
from pipeline.topics.codec import Codecs

FLUSH_LIMIT_S = 25.0
"""Above the producer's delivery.timeout.ms: by then every message has its answer."""

QUEUE_WAIT_S = 0.5


class Outputs:
    """Everything a worker writes. Nothing counts before `flush` has returned."""

    def __init__(self, settings: Settings, topics: Catalogue, codecs: Codecs) -> None:
        self._topics = topics
        self._codecs = codecs
        self._producer = clients.producer(settings, client_id="replay-worker")
        self._failed: str | None = None

    def clean(self, batch: CleanBatch, key: bytes | None) -> None:
        """To the partition the raw batch stood in, stamped with its LogAppendTime."""
        self._put(
            self._topics.clean.name, self._codecs.clean.encode(batch), key, batch.source_partition, batch.source_at
        )

    def session(self, update: SessionUpdate, at_ms: int) -> None:
        key = session_key(update.tenant, update.session_id)
        self._put(self._topics.sessions.name, self._codecs.sessions.encode(update), key, update.source_partition, at_ms)

    def dead_letter(self, dead: DeadLetter) -> None:
        self._put(self._topics.dead_letters.name, self._codecs.dead_letters.encode(dead), dead.key, 0, dead.source_at)

    def state(self, key: bytes, value: bytes | None, partition: int) -> None:
        """A state record, or its tombstone."""
        self._put(self._topics.state.name, value, key, partition, 0)

    def flush(self) -> None:
        """Until everything put so far is acked. Raises FatalError where anything was not: the process must end then."""
        left = self._producer.flush(FLUSH_LIMIT_S)
        if left or self._failed:
            raise FatalError(
                f"the broker did not take what the worker wrote: {self._failed or f'{left} without an answer'}"
            )

    def _put(self, topic: str, value: bytes | None, key: bytes | None, partition: int, at_ms: int) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=self._delivered, timestamp=at_ms)
                return
            except BufferError:  # the queue is full: push back until the broker has taken some
                self._producer.poll(QUEUE_WAIT_S)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = f"{message.topic()} partition {message.partition()}: {error.name()}"
