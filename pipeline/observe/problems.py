"""Errors as `application/problem+json` (RFC 9457), the same for every HTTP server here."""

from __future__ import annotations

import json
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import RefusedError, RetryableError

TYPE_PREFIX = "urn:portable-replay:problem:"
RETRY_AFTER_S = 2

log = structlog.get_logger()


def problem(status: int, slug: str, title: str, detail: str, **members: Any) -> Response:
    """One problem document; a 503 says when to come back."""
    body = {"type": TYPE_PREFIX + slug, "title": title, "status": status, "detail": detail, **members}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == RetryableError.status else {}
    return Response(json.dumps(body), status, headers, media_type="application/problem+json")


async def refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    members = {"path": error.path} if error.path else {}
    answer = problem(error.status, error.slug, error.title, str(error), **members)
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


async def unavailable(_: Request, error: Exception) -> Response:
    assert isinstance(error, RetryableError)
    log.warning("answered_unavailable", why=str(error))
    return problem(error.status, error.slug, error.title, str(error))


async def http_error(_: Request, error: Exception) -> Response:
    """Unknown routes and wrong methods."""
    assert isinstance(error, HTTPException)
    slug = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "refused")
    answer = problem(error.status_code, slug, str(error.detail), "see the README for the routes")
    answer.headers.update(error.headers or {})
    return answer


async def unexpected(_: Request, error: Exception) -> Response:
    """A bug: told by its type and place, never by its message or the URL, which may hold what was sent."""
    log.error("unexpected_error", type=type(error).__name__, place=place_of(error))
    return problem(500, "internal", "Something is wrong on our side", "it was logged; send it again later")


def place_of(error: BaseException) -> str:
    """`module:line` where the error left this project's code; where it never was there, the line that raised it."""
    place, trace = "nowhere", error.__traceback__
    ours = False
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.startswith("pipeline.") or not ours:
            place, ours = f"{module}:{trace.tb_lineno}", module.startswith("pipeline.")
        trace = trace.tb_next
    return place


class Guard:
    """ASGI middleware, the innermost: an unexpected error becomes a problem document and goes no further.

    Starlette's own handler answers and raises again, and the server then logs the message with the traceback. An answer
    that had begun is cut off: the server closes the connection, so a client cannot take it for whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            answer = await unexpected(Request(scope), error)
            if not begun:
                await answer(scope, receive, send)


HANDLERS: dict[Any, Any] = {
    RefusedError: refused,
    RetryableError: unavailable,
    HTTPException: http_error,
    Exception: unexpected,
}
