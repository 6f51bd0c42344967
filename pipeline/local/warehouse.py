"""The embedded warehouse: ClickHouse's HTTP protocol on loopback over one chDB engine. `python -m pipeline.local.warehouse`.

Sinks, API, notebooks and BI tools share it; production changes only the address. There is no password, so browsers are
kept out: a request with an Origin header or a foreign Host is refused (a web page could otherwise reach loopback).
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

from pipeline import settings as settings_table
from pipeline.errors import ReplayError
from pipeline.local import protocol
from pipeline.local.engine import Engine
from pipeline.observe import logs
from pipeline.observe.serving import serve
from pipeline.settings import Settings

BODY_BYTES_MAX = 256 << 20
THREADS = 8
WAITING_MAX = 64
"""Requests beyond the threads that may wait; more are answered 503."""
COMPRESS_FROM_BYTES = 1024

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class HalfARequestError(Exception):
    """The client was gone before its body had come whole. Half a statement can be one itself: it is not executed."""


class Warehouse:
    """The ASGI application."""

    def __init__(self, engine: Engine, port: int) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode("latin1"), keep_blank_values=True))
        answer = _Answer(send, self._engine.timezone, query.get("query_id") or str(uuid.uuid4()))
        if "origin" in headers or headers.get("host") not in self._hosts:
            await answer.send(403, b"This warehouse answers loopback clients only, no browsers.\n")
            return
        if scope["path"] in {"/ping", "/replicas_status"}:
            await answer.send(200, b"Ok.\n")
            return
        try:
            body = await _read_body(receive)
            if self._busy >= THREADS + WAITING_MAX:
                raise protocol.ProtocolError(202, "TOO_MANY_SIMULTANEOUS_QUERIES", "too many requests wait")
            self._busy += 1
            try:
                reply = await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._handle, scope["method"], query, headers, body
                )
            finally:
                self._busy -= 1
        except HalfARequestError:
            return  # nobody is there to be answered
        except Exception as error:  # the engine raises plain exceptions; each becomes ClickHouse's answer
            status, code, message = protocol.exception(str(error))
            await answer.send(status, message.encode() + b"\n", {"x-clickhouse-exception-code": str(code)})
            return
        await answer.reply(reply, query, headers)

    def _handle(self, method: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> protocol.Reply:
        plain = protocol.decompress(body, headers.get("content-encoding", ""), BODY_BYTES_MAX)
        asked = protocol.statement(method, query, headers.get("content-type", ""), plain)
        if not asked.sql.strip():
            return protocol.Reply(b"Ok.\n", None)
        return self._engine.execute(asked)


class _Answer:
    """Sends one response with the headers that every answer of the server has."""

    def __init__(self, send: Send, timezone: str, query_id: str) -> None:
        self._send = send
        self._common = {
            "x-clickhouse-query-id": query_id,
            "x-clickhouse-timezone": timezone,
            "x-clickhouse-server-display-name": "portable-replay",
        }

    async def reply(self, reply: protocol.Reply, query: dict[str, str], headers: dict[str, str]) -> None:
        extra = {"x-clickhouse-summary": json.dumps({name: str(value) for name, value in reply.summary.items()})}
        body = reply.body
        if reply.format:
            extra["x-clickhouse-format"] = reply.format
        if query.get("enable_http_compression") == "1" and len(body) > COMPRESS_FROM_BYTES:
            body, encoding = protocol.compress(body, headers.get("accept-encoding", ""))
            if encoding:
                extra["content-encoding"] = encoding
        await self.send(200, body, extra)

    async def send(self, status: int, body: bytes, extra: dict[str, str] | None = None) -> None:
        fields = {
            "content-type": "text/plain; charset=UTF-8",
            "content-length": str(len(body)),
            **self._common,
            **(extra or {}),
        }
        raw = [(name.encode(), value.encode("latin1", "replace")) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body})


async def _read_body(receive: Receive) -> bytes:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HalfARequestError
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > BODY_BYTES_MAX:
            raise protocol.ProtocolError(241, "MEMORY_LIMIT_EXCEEDED", f"the body is above {BODY_BYTES_MAX} bytes")
        if not message.get("more_body"):
            return b"".join(chunks)


def run(settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C, then closes the engine."""
    engine = Engine(settings.home / "warehouse")
    try:
        serve(
            Warehouse(engine, settings.warehouse_port), host="127.0.0.1", port=settings.warehouse_port, lifespan=False
        )
    finally:
        engine.close()


if __name__ == "__main__":
    loaded = settings_table.load()
    logs.configure(loaded.log_level, part="warehouse")
    try:
        run(loaded)
    except ReplayError as error:
        sys.exit(f"replay: {error}")
