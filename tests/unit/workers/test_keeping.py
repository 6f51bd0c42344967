"""Sessions of a partition: live ones and what stays of released ones."""

from __future__ import annotations

import pytest

from pipeline.workers.keeping import Held, Sessions
from pipeline.workers.state import SessionState, released
from tests.unit.workers.flow import T0, Flow

S1 = b"acme:s1"


def state(applied: int) -> SessionState:
    flow = Flow(offset=applied)
    flow.clicks("b", T0)
    assert flow.state is not None
    return flow.state


def test_unknown_session_is_none() -> None:
    assert Sessions().get(S1) is None


def test_released_session_keeps_its_offset_its_time_and_its_generation_and_is_live_no_more() -> None:
    sessions = Sessions()
    sessions.put(S1, Held(state(5), 1))
    assert (len(sessions), sessions.get(S1)) == (1, Held(state(5), 1))
    sessions.put(S1, Held(released(5, T0), 2))
    assert (len(sessions), list(sessions.live())) == (0, [])
    assert sessions.get(S1) == Held(released(5, T0), 2)


def test_erased_session_stays_erased() -> None:
    sessions = Sessions()
    sessions.put(S1, Held(state(5), 1))
    sessions.put(S1, Held(released(6, T0, erased=True), 1))
    assert (len(sessions), sessions.get(S1)) == (0, Held(released(6, T0, erased=True), 1))


def test_session_that_came_back_is_live_again() -> None:
    sessions = Sessions()
    sessions.put(S1, Held(released(5, T0), 1))
    sessions.put(S1, Held(state(9), 1))
    assert sessions.get(S1) == Held(state(9), 1)


@pytest.mark.parametrize(
    ("first", "then", "kept"), [((5, 1), (9, 1), (9, 1)), ((9, 1), (5, 2), (9, 1)), ((5, 1), (5, 2), (5, 2))]
)
def test_newest_marker_wins(first: tuple[int, int], then: tuple[int, int], kept: tuple[int, int]) -> None:
    sessions = Sessions()
    for applied, generation in (first, then):
        sessions.put(S1, Held(released(applied, T0), generation))
    held = sessions.get(S1)
    assert held is not None
    assert (held.state.applied, held.generation) == kept


def test_markers_are_forgotten_by_their_age_and_live_sessions_are_not() -> None:
    sessions = Sessions()
    for n in range(3):
        sessions.put(b"acme:%d" % n, Held(released(n, T0 + n), 1))
    sessions.put(S1, Held(state(5), 1))
    sessions.forget_markers(T0 + 1)
    assert [sessions.get(b"acme:%d" % n) is not None for n in range(3)] == [False, True, True]
    assert sessions.get(S1) is not None
