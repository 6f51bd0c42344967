"""`replay capture`: the HTTP front. 200 means that Kafka has acked every batch of the request.

POST /v1/batches      one batch, a list, or NDJSON      → {"batches": n, "events": n}
POST /v1/recordings   a whole SessionRecording          → {"batches": n, "events": n}
GET  /healthz, /readyz
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.capture.acks import AckedProducer
from pipeline.capture.bodies import decode_body
from pipeline.capture.formats import portable
from pipeline.errors import MalformedError, RetryableError, TooLargeError, UnauthorizedError
from pipeline.keys import KeyFile
from pipeline.model.admission import Limits
from pipeline.model.batches import RecorderBatch, session_key
from pipeline.observe.problems import HANDLERS, Guard, problem
from pipeline.observe.serving import serve
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids

REQUESTS_MAX = 256
"""Requests in work at once; more are answered 503."""

SMALL_BODY_BYTES = 64 << 10
"""Up to here a body is decoded on the event loop; larger ones in a thread, so that small requests stay quick."""

DECODING_THREADS = 2
BROKER_TIMEOUT_S = 2.0
CLOSE_LIMIT_S = 4.0

Decode = Callable[..., list[RecorderBatch]]


class Capture:
    """The application's state and its two writing routes."""

    def __init__(self, settings: Settings) -> None:
        topics = catalogue(settings)
        self._settings = settings
        self._topic = topics.batches.name
        self._encode = Codecs(topics, schema_ids(settings)).batches.encode
        self._keys = KeyFile(settings.keys)
        payload_bytes = settings.batch_bytes_max - clients.ENVELOPE_BYTES_MAX
        self._limits = Limits(settings.batch_events_max, payload_bytes)
        self._producer = AckedProducer(clients.producer(settings, client_id="replay-capture"))
        self._admin = clients.admin(settings)
        self._threads = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decode")
        self._busy = 0

    async def batches(self, request: Request) -> Response:
        return await self._take(request, portable.decode_batches)

    async def recordings(self, request: Request) -> Response:
        return await self._take(request, portable.decode_recording)

    async def _take(self, request: Request, decode: Decode) -> Response:
        tenant = self._tenant(request)
        if self._busy >= REQUESTS_MAX:
            raise RetryableError("too many requests are in work")
        self._busy += 1
        try:
            body = await self._body(request)
            received_at = time.time_ns() // 1_000_000
            encoding = request.headers.get("content-encoding", "")

            def work() -> tuple[list[tuple[bytes, bytes]], int]:
                plain = decode_body(body, encoding, self._settings.decoded_bytes_max)
                admitted = decode(plain, tenant=tenant, received_at=received_at, limits=self._limits)
                records = [(session_key(each.tenant, each.session_id), self._encode(each)) for each in admitted]
                return records, sum(each.event_count for each in admitted)

            if len(body) <= SMALL_BODY_BYTES and not encoding:
                records, events = work()
            else:
                records, events = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            await self._producer.put(self._topic, records, self._settings.ack_timeout_ms / 1000)
        finally:
            self._busy -= 1
        return JSONResponse({"batches": len(records), "events": events})

    def _tenant(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = request.query_params.get("key", "")
        tenant = self._keys.tenant_of(key.strip(), "write") if key else None
        if tenant is None:
            raise UnauthorizedError("send a write key: Authorization: Bearer <key>, or ?key=<key> for beacons")
        return tenant

    async def _body(self, request: Request) -> bytes:
        """The body as sent, refused as soon as it is known to be too large."""
        limit = self._settings.body_bytes_max
        too_large = TooLargeError(f"the body is above REPLAY_BODY_BYTES_MAX = {limit} bytes")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        chunks, size = [], 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
        except ClientDisconnect:
            raise MalformedError("the connection closed before the body was whole") from None
        return b"".join(chunks)

    async def ready(self, _: Request) -> Response:
        if await asyncio.to_thread(self._broker_answers):
            return JSONResponse({"status": "ready"})
        return problem(503, "unavailable", "Not ready", "the broker does not answer")

    def _broker_answers(self) -> bool:
        try:
            return self._topic in self._admin.list_topics(self._topic, timeout=BROKER_TIMEOUT_S).topics
        except Exception:
            return False

    def close(self) -> None:
        self._producer.close(CLOSE_LIMIT_S)
        self._threads.shutdown(wait=False)


async def healthy(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


def make_app(settings: Settings) -> Starlette:
    """The ASGI application."""
    capture = Capture(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(capture.close)

    cors = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        # a page may ask for anything: what is refused is then told by the answer itself, which the page can read
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=["Retry-After"],
    )
    return Starlette(
        routes=[
            Route("/v1/batches", capture.batches, methods=["POST"]),
            Route("/v1/recordings", capture.recordings, methods=["POST"]),
            Route("/healthz", healthy),
            Route("/readyz", capture.ready),
        ],
        middleware=[cors, Middleware(Guard)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )


def run(settings: Settings) -> None:
    """Serves until SIGTERM; what is in work is answered, what was produced is acked."""
    serve(make_app(settings), host=settings.host, port=settings.capture_port)
