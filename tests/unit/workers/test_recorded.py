"""Sessions of real rrweb and posthog recordings: their counts, counted here by hand over the plain JSON."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pipeline.model.batches import SessionUpdate
from pipeline.sinks.rows import event_rows
from pipeline.workers.chain import Outcome, step
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState
from tests.unit.workers.flow import batch, place

DATA = Path(__file__).parents[2] / "data" / "recordings"
NAMES = ["posthog-noext-errors-console", "rrweb-browse-login-checkout", "posthog-array-spa-live"]
CHUNKS = [7, 10_000]


@cache
def lines_of(name: str) -> list[bytes]:
    packed = (DATA / f"{name}.jsonl.zst").read_bytes()
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=32 << 20).splitlines()


@cache
def outcomes(chunk: int, *windows: str) -> list[Outcome]:
    """Each recording in a window of its own, its batches in turn."""
    pieces = []
    for name in windows:
        lines = lines_of(name)
        last = json.loads(lines[-1])["timestamp"]
        pieces += [
            (number, name, last, lines[first : first + chunk])
            for number, first in enumerate(range(0, len(lines), chunk))
        ]
    state: SessionState | None = None
    found = []
    for offset, (number, name, last, lines) in enumerate(sorted(pieces, key=lambda each: each[:2])):
        one = batch(
            f"{name}.{number}", *lines, source=name.partition("-")[0], window_id=name, sent_at=last, received_at=last
        )
        found.append(step(state, one, place(offset, last), Rules()))
        state = found[-1].state
    return found


def told(chunk: int, *windows: str) -> SessionUpdate:
    updates = {each.part: each for outcome in outcomes(chunk, *windows) for each in outcome.sessions}
    assert list(updates) == ["1"]
    return updates["1"]


def stored(chunk: int, name: str) -> list[Any]:
    return [json.loads(each) for outcome in outcomes(chunk, name) for each in outcome.clean.payload.splitlines()]


def increments(events: list[Any], source: int) -> list[Any]:
    return [each for each in events if each["type"] == 3 and each["data"]["source"] == source]


def clicks_of(events: list[Any]) -> list[Any]:
    return [each for each in increments(events, 2) if each["data"]["type"] == 2]


def console_of(events: list[Any]) -> list[Any]:
    return [each["data"]["payload"] for each in events if each["type"] == 6 and "console" in each["data"]["plugin"]]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_stored_events(name: str, chunk: int) -> None:
    part, events = told(chunk, name), stored(chunk, name)
    hrefs = [each["data"]["href"] for each in events if each["type"] == 4]
    errors = [each for each in console_of(events) if each["level"] == "error"]
    uncaught = [each for each in errors if each["payload"][0].startswith('"Uncaught')]
    assert part.clicks == len(clicks_of(events)) > 0
    assert part.inputs == len(increments(events, 5))
    assert part.scrolls == len(increments(events, 3))
    assert part.mouse_moves == sum(len(each["data"]["positions"]) for each in increments(events, 1)) > 0
    assert part.navigations == len(hrefs) > 0
    assert (part.errors, part.console_errors) == (len(uncaught), len(errors) - len(uncaught))
    assert part.events == len(events)
    assert set(hrefs) <= set(part.urls)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", NAMES)
def test_dead_clicks_are_those_without_an_answer_within_two_seconds(name: str, chunk: int) -> None:
    events = stored(chunk, name)
    answers = [each["timestamp"] for each in events if each["type"] in (2, 4)] + [
        each["timestamp"] for source in (0, 3, 5) for each in increments(events, source)
    ]
    last = events[-1]["timestamp"]
    dead = [
        at
        for at in (each["timestamp"] for each in clicks_of(events))
        if not any(at <= answer <= at + 2_000 for answer in answers) and last > at + 2_000
    ]
    assert told(chunk, name).dead_clicks == len(dead)


def test_some_real_click_is_dead_and_some_page_address_came_in_passing() -> None:
    assert {told(7, name).dead_clicks for name in NAMES} != {0}
    spa = told(7, "posthog-array-spa-live")
    assert spa.navigations == 1
    assert [url.rpartition("/")[2] for url in spa.urls[1:]] == ["orders", "stock", "team"]
    assert spa.last_url.endswith("/stock")


def test_uncaught_errors_and_rejections_of_a_real_recording_are_errors() -> None:
    part = told(7, "posthog-noext-errors-console")
    assert (part.errors, part.console_errors) == (3, 2)


def test_two_tabs_are_one_session_in_two_windows() -> None:
    tabs = ("posthog-array-two-tabs-window1", "posthog-array-two-tabs-window2")
    both, alone = told(7, *tabs), [told(7, each) for each in tabs]
    for name in ("events", "clicks", "inputs", "mouse_moves", "navigations", "dead_clicks"):
        assert getattr(both, name) == sum(getattr(each, name) for each in alone), name
    assert {each.clean.window_id for each in outcomes(7, *tabs)} == set(tabs)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_typed_ones_and_as_many_as_the_session_counts(name: str) -> None:
    rows = event_rows([each.clean for each in outcomes(7, name)]).to_pylist()
    part, events = told(7, name), stored(7, name)
    kinds = [row["type"] for row in rows]
    assert set(kinds) <= {"click", "input", "scroll", "navigation", "console", "error"}
    assert {kind: kinds.count(kind) for kind in ("click", "input", "scroll", "navigation", "error")} == {
        "click": part.clicks, "input": part.inputs, "scroll": part.scrolls, "navigation": part.navigations,
        "error": part.errors}  # fmt: skip
    assert kinds.count("console") == len(console_of(events)) - part.errors
    assert [row["x"] for row in rows if row["type"] == "click"] == [each["data"]["x"] for each in clicks_of(events)]
    assert {row["url"] for row in rows if row["type"] == "navigation"} <= set(part.urls)
    assert all(json.loads(row["data"]) for row in rows)
