"""A sink's dead letters: the clean record that its store cannot take, whole, with its coordinates in replay.clean."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.errors import FatalError, PoisonError
from pipeline.model.batches import DeadLetter, session_key
from pipeline.settings import Settings
from pipeline.sinks.delivery import Taken
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids

FLUSH_LIMIT_S = 25.0
"""Above the producer's delivery.timeout.ms: by then every letter has its answer."""


class SinkLetters:
    """Writes the letters of one sink. Each write has a producer of its own: most sinks never write one."""

    def __init__(self, settings: Settings, stage: str) -> None:
        self._settings = settings
        self._stage = stage
        self._topics = catalogue(settings)

    def write(self, partition: int, refused: list[tuple[Taken, PoisonError]]) -> None:
        """All of them acked when this returns. Raises FatalError where one was not: the record is read again then."""
        codecs = Codecs(self._topics, schema_ids(self._settings))
        producer = clients.producer(self._settings, client_id=f"replay-sink-{self._stage}")
        failed: list[str] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error.name())

        for taken, poison in refused:
            batch = taken.batch
            letter = DeadLetter(
                stage=self._stage,  # type: ignore[arg-type]
                reason=poison.reason,
                detail=poison.detail,
                epoch=batch.epoch,
                source_topic=self._topics.clean.name,
                source_partition=partition,
                source_offset=taken.clean_offset,
                source_at=batch.source_at,
                event_count=batch.event_count,
                key=session_key(batch.tenant, batch.session_id),
                value=codecs.clean.encode(batch),
            )
            try:
                producer.produce(
                    self._topics.dead_letters.name, codecs.dead_letters.encode(letter), letter.key, 0,
                    on_delivery=delivered, timestamp=batch.source_at,
                )  # fmt: skip
            except (BufferError, KafkaException) as error:
                failed.append(type(error).__name__)
        left = producer.flush(FLUSH_LIMIT_S)
        if left or failed:
            raise FatalError(
                f"{len(refused)} records of {self._topics.clean.name} partition {partition} cannot be stored, and not be "
                f"written to {self._topics.dead_letters.name} either ({', '.join(sorted(set(failed))) or 'no answer'})"
            )
