"""What the eraser writes to Kafka: requests to forget sessions, in the order of the raw log, and what was erased."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.erasure.blocks import Session
from pipeline.erasure.requests import Request
from pipeline.errors import RetryableError
from pipeline.model.batches import Erasure, ErasureRequest, session_key
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids

ACK_LIMIT_S = 30.0

Place = tuple[int, int]
"""(partition, offset) of replay.batches."""


class ErasureLog:
    """Both methods return when all is acked, or raise RetryableError: some may stand in the log then, and are asked again."""

    def __init__(self, settings: Settings) -> None:
        self._epoch = settings.epoch
        self._topics = catalogue(settings)
        self._codecs = Codecs(self._topics, schema_ids(settings))
        self._producer = clients.producer(settings, client_id="replay-eraser")

    def ask(self, sessions: Sequence[Session], why: Mapping[Session, Request]) -> dict[Session, Place]:
        """Puts each session's request into the log; where it stands there."""
        places: dict[Session, Place] = {}
        failed: list[str] = []
        for tenant, session_id in sessions:
            request = why[tenant, session_id]
            record = ErasureRequest(
                tenant=tenant, session_id=session_id, erasure_id=request.id, asked_at=request.asked_at
            )

            def acked(error: KafkaError | None, message: Message, session: Session = (tenant, session_id)) -> None:
                partition, offset = message.partition(), message.offset()
                if error is not None or partition is None or offset is None:
                    failed.append(error.name() if error is not None else "no place")
                else:
                    places[session] = partition, offset

            self._produce(
                self._topics.batches.name,
                session_key(tenant, session_id),
                self._codecs.batches.encode(record),
                acked,
            )
        self._flush(failed)
        return places

    def tell(
        self, sessions: Sequence[Session], why: Mapping[Session, Request], places: Mapping[Session, Place]
    ) -> None:
        """A record of each on replay.erasures."""
        now_ms = time.time_ns() // 1_000_000
        failed: list[str] = []
        for tenant, session_id in sessions:
            request = why[tenant, session_id]
            partition, offset = places[tenant, session_id]
            record = Erasure(
                tenant=tenant,
                session_id=session_id,
                erasure_id=request.id,
                asked_at=request.asked_at,
                erased_at=now_ms,
                epoch=self._epoch,
                source_partition=partition,
                source_offset=offset,
            )
            self._produce(
                self._topics.erasures.name,
                session_key(tenant, session_id),
                self._codecs.erasures.encode(record),
                lambda error, _: failed.append(error.name()) if error is not None else None,
            )
        self._flush(failed)

    def _produce(
        self, topic: str, key: bytes, value: bytes, acked: Callable[[KafkaError | None, Message], None]
    ) -> None:
        try:
            self._producer.produce(topic, value, key, on_delivery=acked)
        except (KafkaException, BufferError) as error:
            raise RetryableError(f"{topic} takes nothing now ({type(error).__name__})") from None

    def _flush(self, failed: list[str]) -> None:
        left = self._producer.flush(ACK_LIMIT_S)
        if left or failed:
            raise RetryableError(f"Kafka did not take what the eraser wrote ({failed[0] if failed else 'no answer'})")
