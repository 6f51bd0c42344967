"""What may be dropped, and the setting that gives a type a gap."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import settings
from pipeline.errors import ConfigurationError
from pipeline.model.events import decode_payload
from pipeline.workers.kinds import may_be_dropped, parse_gaps
from pipeline.workers.rules import rules
from tests.unit.workers.flow import T0, line

NEVER: list[tuple[str | int, Any]] = [
    ("initial_state", {}), ("navigation", {}), ("input", {}), ("submit", {}), ("error", {}), ("promise_error", None),
    (2, {}), (4, {}), (7, {}), (-1, {}), (3, None), (3, [1]), (3, {"source": "1"}),
    *((3, {"source": source}) for source in (0, 4, 5, 8, 9, 10, 13, 15, 16, 17, 99, -1)),
]  # fmt: skip
AT_NEED: list[tuple[str | int, Any]] = [
    ("mousemove", {}), ("scroll", {}), ("click", {}), ("console", {}), ("custom", {}), ("3", {}), ("2", {}),
    (0, {}), (1, {}), (5, {}), (6, {}), *((3, {"source": source}) for source in (1, 2, 3, 6, 7, 11, 12, 14)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "data", "droppable"), [(*each, False) for each in NEVER] + [(*each, True) for each in AT_NEED]
)
def test_what_a_page_is_made_of_is_never_dropped(kind: str | int, data: Any, droppable: bool) -> None:
    (event,) = decode_payload(line(kind, T0, data))
    assert may_be_dropped(event) is droppable


def test_second_source_of_an_increment_is_the_one_that_counts() -> None:
    (event,) = decode_payload(b'{"type":3,"timestamp":1,"data":{"source":1,"source":0}}')
    assert not may_be_dropped(event)


@pytest.mark.parametrize(
    ("text", "gaps"),
    [("", {}), (" , ", {}), ("console=0,custom=20", {"custom": 20}), ("my type = 5", None), ("my type=5", {"my type": 5}),
     (" 5=100, 3.7=50 ,click=1", {"3.7": 50, "5": 100, "click": 1}), ("custom=86400000", {"custom": 86_400_000})],
)  # fmt: skip
def test_gaps_are_written_as_a_list(text: str, gaps: dict[str, int] | None) -> None:
    if gaps is None:
        with pytest.raises(ConfigurationError, match="REPLAY_THROTTLE"):
            parse_gaps(text)
    else:
        assert parse_gaps(text) == gaps


@pytest.mark.parametrize(
    "name",
    ["initial_state", "navigation", "input", "submit", "error", "promise_error", "2", "4", "7", "02", "3", "3.0", "3.4",
     "3.5", "3.8", "3.9", "3.13", "3.15", "3.99", "mousemove", "scroll", "3.1", "3.3", "3.6", "3.12"],
)  # fmt: skip
def test_type_that_is_never_throttled_or_has_a_setting_of_its_own_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"REPLAY_THROTTLE.*{name}"):
        rules(settings.load({"REPLAY_THROTTLE": f"console=5,{name}=20"}))


@pytest.mark.parametrize(
    "text",
    ["console", "console=", "=5", "console=-1", "console=1.5", "console=x", "console=86400001", "a=1,a=2", "x" * 65 + "=1",
     "05=1", "3.07=1", ",".join(f"t{n}=1" for n in range(9))],
)  # fmt: skip
def test_list_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="REPLAY_THROTTLE"):
        parse_gaps(text)


@pytest.mark.parametrize(
    "name",
    ["REPLAY_MOUSEMOVE_GAP_MS", "REPLAY_SCROLL_GAP_MS", "REPLAY_SESSION_BYTES_PER_S", "REPLAY_SESSION_BURST_BYTES"],
)
def test_negative_limit_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        rules(settings.load({name: "-1"}))
