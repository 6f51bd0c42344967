"""Carries out a plan of traffic against a running front: HTTP as browsers do, Kafka as services do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import msgspec
import zstandard

from pipeline.errors import FatalError, RetryableError
from pipeline.load.traffic import BROKEN_EVENTS, BROKEN_PAYLOAD, Sending
from pipeline.model.admission import metadata
from pipeline.model.batches import Metadata, RecorderBatch, session_key
from pipeline.model.events import SessionRecording, encode_payload, encode_value
from pipeline.producer import BatchProducer
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids

REQUEST_TIMEOUT_S = 30.0
RETRY_PAUSE_S = 0.2
RETRY_LIMIT_S = 120.0


@dataclass
class Sent:
    """What was accepted: a HTTP 200, or Kafka's ack for what a service produced itself."""

    events: int = 0
    batches: int = 0
    retried_requests: int = 0
    by_way: dict[str, int] = field(default_factory=dict)


class Sender:
    """Sends plans. Retries what is answered 503 or not at all, as a browser client does, up to RETRY_LIMIT_S."""

    def __init__(self, settings: Settings, *, tenant: str, write_key: str) -> None:
        self._tenant = tenant
        self._topics = catalogue(settings)
        self._codecs = Codecs(self._topics, schema_ids(settings))
        self._producer = clients.producer(settings, client_id="replay-demo-service")
        self._service = BatchProducer(settings, tenant=tenant, client_version="demo")
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{settings.capture_port}",
            headers={"Authorization": f"Bearer {write_key}"},
            timeout=REQUEST_TIMEOUT_S,
            trust_env=False,
        )
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self.sent = Sent()

    def send(self, sendings: list[Sending], *, progress: Callable[[int], None] = lambda _: None) -> Sent:
        """Sends all in order; calls `progress` with the events accepted by each. Returns when all are acked."""
        for each in sendings:
            if each.way == "poison":
                self._poison(each)
                count = BROKEN_EVENTS
            elif each.way == "kafka":
                self._push(each)
                count = len(each.events)
            else:
                self._post(each)
                count = len(each.events)
            self.sent.events += count
            self.sent.batches += 1
            self.sent.by_way[each.way] = self.sent.by_way.get(each.way, 0) + count
            progress(count)
        self._service.flush(REQUEST_TIMEOUT_S)
        if self._producer.flush(REQUEST_TIMEOUT_S):
            raise FatalError("the broker did not ack everything that was produced")
        return self.sent

    def close(self) -> None:
        self._http.close()

    def _post(self, each: Sending) -> None:
        if each.way == "import":
            path, body = "/v1/recordings", msgspec.json.encode(each.recording)
        else:
            path, body = "/v1/batches", encode_value(_client_batch(each))
        headers = {"Content-Type": "application/json", "Content-Encoding": "zstd"}
        compressed = self._compress(body)
        until = time.monotonic() + RETRY_LIMIT_S
        while True:
            try:
                answer = self._http.post(path, content=compressed, headers=headers)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == httpx.codes.OK:
                return
            if answer is not None and answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                raise FatalError(
                    f"capture refused {path} of {each.session_id}: {answer.status_code} {answer.text[:500]}"
                )
            if time.monotonic() > until:
                raise RetryableError(f"capture did not accept {path} within {RETRY_LIMIT_S:.0f} s")
            self.sent.retried_requests += 1
            time.sleep(RETRY_PAUSE_S)

    def _push(self, each: Sending) -> None:
        """As a Python service does it."""
        self._service.send(
            session_id=each.session_id,
            batch_id=each.batch_id,
            user_id=each.user_id,
            sequence=each.sequence,
            events=[
                {"type": event.type, "timestamp": event.timestamp, "data": msgspec.json.decode(event.data)}
                for event in each.events
            ],
            metadata=_page(each.recording),
            final=each.final,
            on_delivery=_must_arrive,
        )

    def _poison(self, each: Sending) -> None:
        """Two things that no worker can read: a batch whose payload is cut short, and bytes that are not Avro."""
        broken = RecorderBatch(
            **{
                **msgspec.structs.asdict(recorder_batch(each, self._tenant)),
                "payload": BROKEN_PAYLOAD,
                "event_count": BROKEN_EVENTS,
            }
        )
        self._put(self._codecs.batches.encode(broken), session_key(broken.tenant, broken.session_id))
        self._put(b"this is not Avro", session_key(self._tenant, each.session_id))

    def _put(self, value: bytes, key: bytes) -> None:
        self._producer.produce(self._topics.batches.name, value, key, on_delivery=_must_be_delivered)
        self._producer.poll(0)


def _must_arrive(batch_id: str, error: str | None) -> None:
    if error is not None:
        raise FatalError(f"the broker did not take batch {batch_id}: {error}")


def _must_be_delivered(error: object, _message: object) -> None:
    if error is not None:
        raise FatalError(f"the broker did not take a batch: {error}")


def _client_batch(each: Sending) -> dict[str, object]:
    """The JSON body of POST /v1/batches."""
    return {
        "batchId": each.batch_id,
        "sessionId": each.session_id,
        "userId": each.user_id,
        "sequence": each.sequence,
        "sentAt": time.time_ns() // 1_000_000,
        "clientVersion": "demo",
        "metadata": each.recording.metadata,
        "events": each.events,
        "final": each.final,
    }


def recorder_batch(each: Sending, tenant: str) -> RecorderBatch:
    """What a service puts on Kafka itself."""
    times = [event.timestamp for event in each.events]
    now_ms = time.time_ns() // 1_000_000
    return RecorderBatch(
        tenant=tenant,
        session_id=each.session_id,
        window_id=each.session_id,
        user_id=each.user_id,
        batch_id=each.batch_id,
        sequence=each.sequence,
        source="portable",
        client_version="demo",
        imported=False,
        final=each.final,
        sent_at=now_ms,
        received_at=now_ms,
        metadata=_page(each.recording),
        first_event_at=min(times, default=0),
        last_event_at=max(times, default=0),
        event_count=len(each.events),
        payload=encode_payload(list(each.events)),
    )


def _page(recording: SessionRecording) -> Metadata:
    told = recording.metadata
    return metadata(told.user_agent, told.viewport.width, told.viewport.height, told.url)
