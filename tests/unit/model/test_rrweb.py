"""What rrweb's events say in the portable model's words. Shapes are those of real recorders."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pipeline.model.events import SessionEvent
from pipeline.model.rrweb import Said, read


def event(kind: int, data: Any) -> SessionEvent:
    return SessionEvent(kind, 5, msgspec.Raw(json.dumps(data).encode()))


def console(level: Any, *args: Any) -> dict[str, Any]:
    return {"plugin": "rrweb/console@1", "payload": {"level": level, "trace": [], "payload": list(args)}}


POSITION = {"x": 1, "y": 2, "id": 3, "timeOffset": 0}


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (2, {"node": {}, "initialOffset": {}}, Said("change")),
        (3, {"source": 0, "texts": [], "attributes": [], "removes": [], "adds": []}, Said("change")),
        (3, {"source": 1, "positions": [POSITION, POSITION]}, Said("mousemove", positions=2)),
        (3, {"source": 2, "type": 2, "id": 186, "x": 183, "y": 397}, Said("click", x=183, y=397)),
        (3, {"y": 1, "x": 2, "type": 2, "source": 2}, Said("click", x=2, y=1)),
        (3, {"source": 3, "id": 1, "x": 0, "y": 900}, Said("scroll", x=0, y=900)),
        (3, {"source": 5, "text": "a", "isChecked": False, "id": 9}, Said("input", text="a")),
        (4, {"href": "http://shop.example.test/", "width": 1}, Said("navigation", url="http://shop.example.test/")),
        (5, {"tag": "$pageview", "payload": {"href": "http://a.test/b"}}, Said("page", url="http://a.test/b")),
        (6, console("error", '"error line"', "1"), Said("console", level="error", message='["\\"error line\\"","1"]')),
        (6, console("log", '"basket"'), Said("console", level="log", message='["\\"basket\\""]')),
        (6, console("error", '"Uncaught TypeError: no loom"'), Said("error", level="error", message="Uncaught TypeError: no loom")),
        (6, console("error", '"Uncaught (in promise)"', '"why"'), Said("error", level="error", message="Uncaught (in promise)")),
        (6, console("warn", '"Uncaught"'), Said("console", level="warn", message='["\\"Uncaught\\""]')),
    ],
    ids=str,
)  # fmt: skip
def test_event_is_told_in_portable_words(kind: int, data: Any, said: Said) -> None:
    assert read(event(kind, data)) == said


@pytest.mark.parametrize(
    ("kind", "data"),
    [(0, {}), (1, {}), (3, {"source": 2, "type": 1, "id": 1, "x": 1, "y": 1}), (3, {"source": 2, "type": 5, "id": 1}),
     (3, {"source": 9, "id": 1}), (3, {}), (3, None), (3, []), (3, {"source": [1]}), (3, {"source": 1}),
     (3, {"source": 1, "positions": 7}), (4, None), (5, {"tag": "$recording_started", "payload": {}}), (5, {"tag": "$pageview"}),
     (6, {"plugin": "rrweb/network@1", "payload": {"requests": []}}), (6, {"plugin": "rrweb/console@1"}), (6, 1), (7, {}), (99, {})],
    ids=str,
)  # fmt: skip
def test_what_says_nothing_that_counts_or_has_another_shape_is_nothing(kind: int, data: Any) -> None:
    assert read(event(kind, data)) is None
