"""From asyncio onto Kafka and back: produce, and know when the broker has it.

librdkafka's delivery reports come in the thread that polls; they are counted there and told to the event loop once a request.
"""

from __future__ import annotations

import asyncio
import threading

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.errors import RetryableError

POLL_S = 0.1


class _Pending:
    """The records of one request that wait for their acks. Touched by the polling thread only."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self._left = count
        self._loop = loop
        self._error: KafkaError | None = None
        self.answer: asyncio.Future[KafkaError | None] = loop.create_future()

    def delivered(self, error: KafkaError | None, _: Message) -> None:
        self._error = self._error or error
        self._left -= 1
        if self._left == 0:
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self.answer.done():
            self.answer.set_result(self._error)


class AckedProducer:
    """Wraps a producer whose acks requests wait for."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="acks", daemon=True)
        self._thread.start()

    async def put(self, topic: str, records: list[tuple[bytes, bytes]], timeout_s: float) -> None:
        """(key, value) records in order; returns when all are acked.

        Raises RetryableError where the queue is full, an ack failed, or none came in time. Then some may be on the topic,
        or get there yet: the client sends again, and the workers drop what repeats.
        """
        if not records:
            return
        pending = _Pending(len(records), asyncio.get_running_loop())
        for key, value in records:
            try:
                self._producer.produce(topic, value, key, on_delivery=pending.delivered)
            except BufferError:
                raise RetryableError("too much waits for Kafka") from None
            except KafkaException as refusal:
                raise RetryableError(f"Kafka did not take it ({refusal.args[0].name()})") from None
        try:
            error = await asyncio.wait_for(pending.answer, timeout_s)
        except TimeoutError:
            raise RetryableError(f"Kafka did not ack within {timeout_s:.0f} s") from None
        if error is not None:
            raise RetryableError(f"Kafka did not take it ({error.name()})")

    def close(self, timeout_s: float) -> None:
        """Waits for what is on its way."""
        self._producer.flush(timeout_s)
        self._stop.set()
        self._thread.join(timeout_s)

    def _poll(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(POLL_S)
