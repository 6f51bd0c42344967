"""A bug answers 500 as a problem document, and neither the answer nor the log holds what was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline.errors import ConfigurationError, MalformedError
from pipeline.observe.problems import HANDLERS, Guard, place_of
from pipeline.settings import load

SECRET = "hunter2-sentinel"


async def broken(_: Request) -> Response:
    raise ValueError(SECRET)


async def refusing(_: Request) -> Response:
    raise MalformedError("a number is wanted", path="$.a")


async def fine(_: Request) -> Response:
    return PlainTextResponse("fine")


async def breaks_off(_: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ValueError(SECRET)

    return StreamingResponse(chunks())


ROUTES = {"/broken/{word}": broken, "/refusing": refusing, "/fine": fine, "/breaks-off": breaks_off}
APP = Starlette(
    routes=[Route(path, each) for path, each in ROUTES.items()],
    middleware=[Middleware(Guard)],
    exception_handlers=HANDLERS,
)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def ask(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(APP)  # raises what the application lets through
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


def run(path: str) -> httpx.Response:
    return asyncio.run(ask(path))


def test_a_bug_is_a_problem_document_and_goes_no_further(logged: list[Any]) -> None:
    answer = run(f"/broken/{SECRET}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["type"] == "urn:portable-replay:problem:internal"
    assert SECRET not in answer.text
    (line,) = logged
    assert (line["event"], line["type"]) == ("unexpected_error", "ValueError")
    assert SECRET not in json.dumps(line)


def test_refusals_and_good_answers_pass(logged: list[Any]) -> None:
    assert run("/fine").text == "fine"
    assert run("/refusing").json()["path"] == "$.a"
    assert run("/nowhere").json()["type"] == "urn:portable-replay:problem:not-found"
    assert logged == []


def test_an_answer_that_had_begun_is_cut_off_and_not_answered_twice(logged: list[Any]) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()  # the client stays

    async def send(message: Any) -> None:
        sent.append(message)

    asked = {"type": "http", "method": "GET", "path": "/breaks-off", "headers": [], "query_string": b""}
    asyncio.run(APP(asked, receive, send))
    assert [each["type"] for each in sent].count("http.response.start") == 1
    assert sent[-1] == {"type": "http.response.body", "body": b"begun", "more_body": True}
    assert [line["event"] for line in logged] == ["unexpected_error"]


def test_the_place_is_where_the_error_left_our_code() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"REPLAY_CAPTURE_PORT": SECRET})
    module, line = place_of(caught.value).split(":")
    assert module == "pipeline.settings"
    assert int(line) > 0


def test_an_error_that_never_was_in_our_code_has_the_place_that_raised_it() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert place_of(caught.value).startswith("json.decoder:")
