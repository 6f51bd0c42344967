"""The embedded warehouse without its engine: what reaches the engine at all."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.local.protocol import Reply, Statement
from pipeline.local.warehouse import Warehouse

PORT = 8123
FIRST_HALF = b"INSERT INTO t SELECT 1 WHERE 1 = 1"
SECOND_HALF = b" AND 1 = 0"


class Engine:
    """Remembers what it was told to execute."""

    timezone = "UTC"

    def __init__(self) -> None:
        self.executed: list[Any] = []

    def execute(self, asked: Statement) -> Reply:
        self.executed.append(asked)
        return Reply(b"", None)


def post(*messages: dict[str, Any]) -> Engine:
    """One request of which these messages arrive."""
    engine, left = Engine(), list(messages)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", f"127.0.0.1:{PORT}".encode())],
    }

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    async def send(_: Any) -> None:
        """Nobody listens."""

    asyncio.run(Warehouse(engine, PORT)(scope, receive, send))  # type: ignore[arg-type]
    return engine


def test_a_request_that_came_whole_is_executed() -> None:
    engine = post(
        {"type": "http.request", "body": FIRST_HALF, "more_body": True},
        {"type": "http.request", "body": SECOND_HALF, "more_body": False},
    )
    assert [asked.sql for asked in engine.executed] == [(FIRST_HALF + SECOND_HALF).decode()]


def test_half_a_request_is_not_executed_though_it_may_be_a_statement() -> None:
    engine = post({"type": "http.request", "body": FIRST_HALF, "more_body": True}, {"type": "http.disconnect"})
    assert engine.executed == []
