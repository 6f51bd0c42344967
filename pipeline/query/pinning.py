"""PATCH /v1/sessions/{id} {"pinned": true | false}, with an admin key: keeps a session beyond its retention, or lets it go.

The answer is `{"session_id", "pinned", "blocks", "missing_blocks"}`: how many blocks of the recording have a copy that stays,
and how many could not be copied because they cannot be read. It comes when all is done; sent again, it does what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipeline.errors import MalformedError, TooLargeError
from pipeline.query.sessions import parse_id
from pipeline.storage.blobs import BlobStore
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.pins import Pinned, Pins

BODY_BYTES_MAX = 1_000


class _Change(msgspec.Struct, forbid_unknown_fields=True):
    pinned: bool


class Pinning:
    """The route, over the API's own keys and clients."""

    def __init__(
        self,
        tenant_of: Callable[[Request], str],
        client: Callable[[], AbstractContextManager[ClickHouse]],
        store: BlobStore,
    ) -> None:
        self._tenant_of, self._client, self._store = tenant_of, client, store

    async def patch(self, request: Request) -> Response:
        """Raises UnauthorizedError, MalformedError, NotFoundError."""
        tenant, wanted = self._tenant_of(request), parse_id(request.path_params["id"])
        if wanted.part is not None:
            raise MalformedError("a session is pinned whole: its id without ~ is wanted", path="id")
        change = _read(await _body(request))
        done = await run_in_threadpool(self._set, tenant, wanted.session_id, change.pinned)
        return JSONResponse(
            {
                "session_id": wanted.session_id,
                "pinned": done.pinned,
                "blocks": done.blocks,
                "missing_blocks": done.missing_blocks,
            }
        )

    def _set(self, tenant: str, session: str, pinned: bool) -> Pinned:
        with self._client() as warehouse:
            return Pins(warehouse, self._store).change(tenant, session, pinned=pinned)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise TooLargeError(f"at most {BODY_BYTES_MAX} bytes are wanted")
    return body


def _read(body: bytes) -> _Change:
    try:
        return msgspec.json.decode(body, type=_Change)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise MalformedError('{"pinned": true} or {"pinned": false} is wanted') from None
