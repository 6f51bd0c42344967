"""Errors as `application/problem+json` (RFC 9457), the same for every HTTP server here."""

from __future__ import annotations

import json
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

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


async def unexpected(request: Request, error: Exception) -> Response:
    """A bug: told by its type and route, never by its message, which may hold what was sent."""
    log.error("unexpected_error", type=type(error).__name__, route=request.url.path, exc_info=False)
    return problem(500, "internal", "Something is wrong on our side", "it was logged; nothing was accepted")


HANDLERS: dict[Any, Any] = {
    RefusedError: refused,
    RetryableError: unavailable,
    HTTPException: http_error,
    Exception: unexpected,
}
