"""The error tree is total: each refusal is one HTTP answer, and every server knows all of them."""

from __future__ import annotations

import asyncio
import inspect
import json

import pytest
from starlette.requests import Request

from pipeline import errors
from pipeline.errors import (
    ConfigurationError,
    FatalError,
    PausedError,
    PoisonError,
    RefusedError,
    ReplayError,
    RetryableError,
)
from pipeline.observe.problems import HANDLERS

OURS = [each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__]
REFUSALS = [each for each in OURS if issubclass(each, RefusedError) and each is not RefusedError]
ASKED = Request({"type": "http", "method": "POST", "path": "/", "headers": []})


def test_every_error_has_the_one_root_and_one_of_five_verdicts() -> None:
    verdicts = (RefusedError, RetryableError, PoisonError, PausedError, FatalError)
    for each in OURS:
        assert issubclass(each, ReplayError)
        assert each is ReplayError or sum(issubclass(each, verdict) for verdict in verdicts) == 1
    assert issubclass(ConfigurationError, FatalError)


def test_the_refusals_are_those_of_the_tree_in_the_documentation() -> None:
    expected = {
        ("MalformedError", 400, "malformed"),
        ("UnauthorizedError", 401, "unauthorized"),
        ("NotFoundError", 404, "not-found"),
        ("TooLargeError", 413, "too-large"),
        ("UnsupportedError", 415, "unsupported"),
    }
    assert {(each.__name__, each.status, each.slug) for each in REFUSALS} == expected


@pytest.mark.parametrize("member", ["status", "slug", "title"])
def test_no_two_refusals_look_the_same(member: str) -> None:
    values = [getattr(each, member) for each in [*REFUSALS, RetryableError]]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.__name__)
def test_a_servers_handlers_answer_every_refusal_by_its_own_status_and_slug(kind: type[RefusedError]) -> None:
    (handler,) = [HANDLERS[each] for each in kind.__mro__ if each in HANDLERS][:1]
    answer = asyncio.run(handler(ASKED, kind("what is wanted", path="$.field")))
    told = json.loads(answer.body)
    assert answer.media_type == "application/problem+json"
    assert answer.status_code == told["status"] == kind.status
    assert told["type"] == f"urn:portable-replay:problem:{kind.slug}"
    assert (told["title"], told["path"]) == (kind.title, "$.field")
    assert told["detail"] == "$.field: what is wanted"


def test_what_may_succeed_later_says_when() -> None:
    answer = asyncio.run(HANDLERS[RetryableError](ASKED, RetryableError("busy")))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
