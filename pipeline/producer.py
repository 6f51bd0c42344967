"""For Python services that push recorder batches straight onto Kafka, past the HTTP front.

    with BatchProducer(settings.load(), tenant="acme") as producer:
        producer.send(session_id="s1", batch_id="b1", events=[{"type": "click", "timestamp": 1795448983032, "data": {"x": 1}}])

At least once: a batch whose delivery report is good is on the topic for good (acks=all, idempotent); send a failed one
again under the same batch_id, the workers drop what repeats. The same rules admit a batch here and at the front.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.errors import MalformedError, RetryableError, TooLargeError
from pipeline.model.admission import ANONYMOUS, TYPE_CHARS_MAX, TYPE_NUMBER_MAX, Limits, build_batch
from pipeline.model.admission import metadata as within_bounds
from pipeline.model.batches import Metadata, is_id, session_key
from pipeline.model.events import repair_surrogates
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids

Report = Callable[[str, str | None], None]
"""Called once a batch, with its batch_id and None, or why it did not arrive. From `send` or `flush`, in their thread."""


class BatchProducer:
    """One tenant's producer. For one thread at a time; the queue is bounded (256 MiB by default, `queue_kbytes_max`)."""

    def __init__(
        self, settings: Settings, *, tenant: str, client_version: str | None = None, queue_kbytes_max: int = 256 << 10
    ) -> None:
        if not is_id(tenant):
            raise MalformedError("a tenant is 1 to 128 characters of A-Z a-z 0-9 _ . : -", path="tenant")
        topics = catalogue(settings)
        self._tenant = tenant
        self._client_version = None if client_version is None else _text(client_version, "clientVersion")
        self._topic = topics.batches.name
        self._encode = Codecs(topics, schema_ids(settings)).batches.encode
        self._limits = Limits(settings.batch_events_max, settings.batch_bytes_max - clients.ENVELOPE_BYTES_MAX)
        self._producer = clients.producer(
            settings, client_id="replay-batch-producer", **{"queue.buffering.max.kbytes": queue_kbytes_max}
        )

    def send(
        self,
        *,
        session_id: str,
        batch_id: str,
        events: Sequence[dict[str, Any]],
        window_id: str | None = None,
        user_id: str = ANONYMOUS,
        sequence: int | None = None,
        sent_at: int | None = None,
        metadata: Metadata | None = None,
        imported: bool = False,
        final: bool = False,
        on_delivery: Report | None = None,
        block_s: float = 10.0,
    ) -> None:
        """Queues one batch; events are `{"type", "timestamp" (ms), "data"}`. Waits up to `block_s` where the queue is full.

        Half a surrogate pair in a text becomes U+FFFD; a page's description is cut to its limits. Raises MalformedError or
        TooLargeError (nothing was queued), RetryableError (the queue stayed full, or Kafka's client refused).
        """
        now_ms = time.time_ns() // 1_000_000
        sent_at = now_ms if sent_at is None else sent_at
        _whole(sent_at, "$.sentAt")
        if sequence is not None:
            _whole(sequence, "$.sequence")
        _flag(imported, "$.imported")
        _flag(final, "$.final")
        batch = build_batch(
            tenant=self._tenant,
            session_id=session_id,
            window_id=window_id,
            user_id=_text(user_id, "$.userId"),
            batch_id=batch_id,
            sequence=sequence,
            client_version=self._client_version,
            sent_at=sent_at,
            received_at=now_ms,
            metadata=_page(metadata or Metadata()),
            times=[_time(event, index) for index, event in enumerate(events)],
            lines=[_line(event, index) for index, event in enumerate(events)],
            limits=self._limits,
            imported=imported,
            final=final,
        )

        def delivered(error: KafkaError | None, _: Message) -> None:
            if on_delivery is not None:
                on_delivery(batch_id, None if error is None else error.name())

        self._put(session_key(self._tenant, session_id), self._encode(batch), delivered, block_s)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Until every queued batch has its delivery report. Raises RetryableError where some have none in time."""
        left = self._producer.flush(timeout_s)
        if left:
            raise RetryableError(f"{left} batches have no delivery report after {timeout_s:.0f} s")

    def __enter__(self) -> BatchProducer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.flush()
            return
        try:
            self.flush()
        except RetryableError as late:
            error.add_note(str(late))  # the block's own error goes on

    def _put(self, key: bytes, value: bytes, delivered: Any, block_s: float) -> None:
        until = time.monotonic() + block_s
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=delivered)
                self._producer.poll(0)
                return
            except KafkaException as refusal:
                if refusal.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise TooLargeError(f"a record of {len(value)} bytes is above Kafka's limit") from None
                raise RetryableError(f"Kafka's client did not take it ({refusal.args[0].name()})") from None
            except BufferError:
                if time.monotonic() >= until:
                    raise RetryableError(f"the producer's queue stayed full for {block_s:.0f} s") from None
                self._producer.poll(0.1)


def _time(event: dict[str, Any], index: int) -> int:
    if not isinstance(event, dict):
        raise MalformedError("an object is wanted", path=f"$.events[{index}]")
    at = event.get("timestamp")
    if not isinstance(at, int) or isinstance(at, bool):
        raise MalformedError("a whole number of milliseconds is wanted", path=f"$.events[{index}].timestamp")
    return at


def _line(event: dict[str, Any], index: int) -> bytes:
    kind = event.get("type")
    text = isinstance(kind, str) and 1 <= len(kind) <= TYPE_CHARS_MAX
    number = isinstance(kind, int) and not isinstance(kind, bool) and 0 <= kind <= TYPE_NUMBER_MAX
    if not (text or number):
        raise MalformedError("a name, or rrweb's number, is wanted", path=f"$.events[{index}].type")
    line = {"type": kind, "timestamp": event["timestamp"], "data": event.get("data", {})}
    try:
        return orjson.dumps(line)
    except orjson.JSONEncodeError as error:
        halves = "surrogate" in str(error)
    if halves:
        try:
            return orjson.dumps(orjson.loads(repair_surrogates(json.dumps(line).encode())))
        except (TypeError, ValueError, RecursionError):
            pass
    raise MalformedError("the event is not JSON", path=f"$.events[{index}]")


def _whole(number: object, path: str) -> None:
    if not isinstance(number, int) or isinstance(number, bool):
        raise MalformedError("a whole number is wanted", path=path)


def _flag(flag: object, path: str) -> None:
    if not isinstance(flag, bool):
        raise MalformedError("true or false is wanted", path=path)


def _text(text: object, path: str) -> str:
    if not isinstance(text, str):
        raise MalformedError("a text is wanted", path=path)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _page(page: Metadata) -> Metadata:
    _whole(page.viewport_width, "$.metadata.viewport.width")
    _whole(page.viewport_height, "$.metadata.viewport.height")
    return within_bounds(
        _text(page.user_agent, "$.metadata.userAgent"),
        page.viewport_width,
        page.viewport_height,
        _text(page.url, "$.metadata.url"),
    )
