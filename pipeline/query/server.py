"""`replay api`: sessions and recordings over HTTP, with a read or admin key (Authorization: Bearer, or ?key=).

GET /v1/sessions                  user_id, status, from, to, limit, cursor
GET /v1/sessions/{id}             all parts of a session; {id}~2 one part
PATCH /v1/sessions/{id}           {"pinned": true | false}, with an admin key
GET /v1/sessions/{id}/recording   the portable SessionRecording; ?format=ndjson an event a line. Streamed; blocks that
                                  cannot be read are told at its end (see `recording`)
DELETE /v1/sessions/{id}          erasure, with an admin key (see `pipeline.query.erasures`)
DELETE /v1/users/{id}
GET /v1/erasures/{id}             how far it is; the certificate once it is done
GET /healthz, /readyz
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline.erasure.requests import Kind
from pipeline.erasure.service import EraserService
from pipeline.errors import MalformedError, NotFoundError, RetryableError, UnauthorizedError
from pipeline.keys import KeyFile, Role
from pipeline.observe.problems import HANDLERS, Guard
from pipeline.observe.serving import serve
from pipeline.query import erasures
from pipeline.query.pinning import Pinning
from pipeline.query.recording import block_places, lines, recording
from pipeline.query.sessions import (
    LIMIT_DEFAULT,
    LIMIT_MAX,
    Filter,
    SessionId,
    list_sessions,
    parse_id,
    parse_time,
    parts_of,
    summary,
)
from pipeline.settings import Settings
from pipeline.storage.blobs import open_store
from pipeline.storage.clickhouse import ClickHouse

CLIENTS = 4
READS_AT_ONCE = 16
"""Of blocks, over all answers."""
CLIENT_WAIT_S = 10.0
STATUSES = ("open", "closed")
FORMATS = ("portable", "ndjson")


class Api:
    """The routes; a small pool of warehouse clients, one a request at a time."""

    def __init__(self, settings: Settings) -> None:
        self._keys = KeyFile(settings.keys)
        self._cluster = settings.warehouse_cluster
        self._store = open_store(settings)
        self.eraser = EraserService(settings, self._store)
        self._reads = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="blocks")
        self._clients: queue.Queue[ClickHouse] = queue.Queue()
        for _ in range(CLIENTS):
            self._clients.put(ClickHouse(settings))
        self.pinning = Pinning(self._admin, self._client, self._store)

    async def sessions(self, request: Request) -> Response:
        tenant, wanted = self._tenant(request), _filter(request)
        return JSONResponse(await run_in_threadpool(self._list, tenant, wanted))

    async def session(self, request: Request) -> Response:
        tenant, wanted = self._tenant(request), parse_id(request.path_params["id"])
        parts = await run_in_threadpool(self._parts, tenant, wanted)
        return JSONResponse(summary(parts))

    async def recording(self, request: Request) -> Response:
        tenant, wanted = self._tenant(request), parse_id(request.path_params["id"])
        form = request.query_params.get("format", "portable")
        if form not in FORMATS:
            raise MalformedError(f"one of {', '.join(FORMATS)} is wanted", path="format")
        body = await run_in_threadpool(self._recording, tenant, wanted, form)
        media = "application/json" if form == "portable" else "application/x-ndjson"
        return StreamingResponse(body, headers={"Cache-Control": "no-store"}, media_type=media)

    async def erase_session(self, request: Request) -> Response:
        return await self._erase(request, "session")

    async def erase_user(self, request: Request) -> Response:
        return await self._erase(request, "user")

    async def _erase(self, request: Request, kind: Kind) -> Response:
        tenant, key, subject = self._tenant(request, "admin"), _key(request), request.path_params["id"]
        if self._cluster:
            raise MalformedError(
                "erasure is not built yet for REPLAY_WAREHOUSE_CLUSTER: its mutations go to one server"
            )

        def ask() -> dict[str, object]:
            with self._client() as warehouse:
                return erasures.ask(warehouse, tenant, kind, subject, key=key)

        asked = await run_in_threadpool(ask)
        self.eraser.wake()
        return JSONResponse(asked, 202, {"Location": f"/v1/erasures/{asked['id']}"})

    async def erasure(self, request: Request) -> Response:
        tenant, wanted = self._tenant(request), request.path_params["id"]

        def look_up() -> dict[str, object]:
            with self._client() as warehouse:
                return erasures.look_up(warehouse, tenant, wanted)

        return JSONResponse(await run_in_threadpool(look_up), headers={"Cache-Control": "no-store"})

    async def ready(self, _: Request) -> Response:
        await run_in_threadpool(self._ping)
        return JSONResponse({"status": "ready"})

    def _list(self, tenant: str, wanted: Filter) -> object:
        with self._client() as warehouse:
            return list_sessions(warehouse, tenant, wanted)

    def _parts(self, tenant: str, wanted: SessionId) -> list[dict[str, object]]:
        with self._client() as warehouse:
            parts = parts_of(warehouse, tenant, wanted)
        if not parts:
            raise NotFoundError("there is no session (part) by this id")
        return parts

    def _recording(self, tenant: str, wanted: SessionId, form: str) -> Iterator[bytes]:
        """The body; its first chunk is made here, so that a store that is away is answered as such."""
        parts = self._parts(tenant, wanted)
        with self._client() as warehouse:
            places = block_places(warehouse, tenant, wanted)
        if form == "ndjson":
            body = lines(self._store, self._reads, places)
        else:
            body = recording(self._store, self._reads, places, parts)
        return chain([next(body)], body)

    def _ping(self) -> None:
        with self._client() as warehouse:
            warehouse.value("SELECT 1")

    @contextmanager
    def _client(self) -> Iterator[ClickHouse]:
        try:
            client = self._clients.get(timeout=CLIENT_WAIT_S)
        except queue.Empty:
            raise RetryableError("too many requests wait for the warehouse") from None
        try:
            yield client
        finally:
            self._clients.put(client)

    def _tenant(self, request: Request, role: Role = "read") -> str:
        key = _key(request)
        tenant = self._keys.tenant_of(key, role) if key else None
        if tenant is None:
            raise UnauthorizedError(
                f"send {'an admin' if role == 'admin' else 'a read'} key: Authorization: Bearer <key>"
            )
        return tenant

    def _admin(self, request: Request) -> str:
        return self._tenant(request, "admin")


def _key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = request.query_params.get("key", "")
    return key.strip()


def _filter(request: Request) -> Filter:
    given = request.query_params
    limit = given.get("limit", str(LIMIT_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4) or not 1 <= int(limit) <= LIMIT_MAX:
        raise MalformedError(f"1 to {LIMIT_MAX} is wanted", path="limit")
    if given.get("status") not in (None, *STATUSES):
        raise MalformedError(f"one of {', '.join(STATUSES)} is wanted", path="status")
    return Filter(
        user_id=given.get("user_id"),
        status=given.get("status"),
        from_ms=parse_time(given["from"], "from") if "from" in given else None,
        to_ms=parse_time(given["to"], "to") if "to" in given else None,
        limit=int(limit),
        cursor=given.get("cursor"),
    )


async def healthy(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


def make_app(settings: Settings) -> Starlette:
    """The ASGI application."""
    return _app(Api(settings))


def _app(api: Api) -> Starlette:
    return Starlette(
        routes=[
            Route("/v1/sessions", api.sessions),
            Route("/v1/sessions/{id}", api.session),
            Route("/v1/sessions/{id}", api.pinning.patch, methods=["PATCH"]),
            Route("/v1/sessions/{id}", api.erase_session, methods=["DELETE"]),
            Route("/v1/users/{id:path}", api.erase_user, methods=["DELETE"]),
            Route("/v1/erasures/{id}", api.erasure),
            Route("/v1/sessions/{id}/recording", api.recording),
            Route("/healthz", healthy),
            Route("/readyz", api.ready),
        ],
        middleware=[Middleware(Guard)],
        exception_handlers=HANDLERS,
    )


def run(settings: Settings) -> None:
    """Serves until SIGTERM, and carries erasures out meanwhile."""
    api = Api(settings)
    api.eraser.start()
    try:
        serve(_app(api), host=settings.host, port=settings.api_port)
    finally:
        api.eraser.stop()
