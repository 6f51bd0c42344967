"""One gate: what lies nearer than the gap to a kept event is dropped, whatever the order of arrival."""

from __future__ import annotations

import pytest

from pipeline.workers.throttle import STRETCHES_MAX, Gate


def kept(times: list[int], gap_ms: int = 50) -> list[int]:
    gate = Gate(gap_ms)
    return [at for at in times if gate.admit(at)]


@pytest.mark.parametrize(
    ("times", "left"),
    [
        ([0, 49, 50, 99, 100], [0, 50, 100]),
        ([0, 49], [0]),
        ([0, 50], [0, 50]),
        ([0, 0, 0], [0]),
        ([1000, 951], [1000]),
        ([1000, 950], [1000, 950]),
        ([0, 100, 50], [0, 100, 50]),
        ([0, 99, 50, 49], [0, 99]),
        ([0, 200, 100, 149, 150], [0, 200, 100, 150]),
        ([200, 0, 40, 160, 60], [200, 0, 60]),
    ],
    ids=["in order", "1 ms less than the gap", "exactly the gap", "same time", "1 ms less before", "exactly the gap before",
         "exactly between two", "no room between", "between stretches", "late ones neither open nor lose"],
)  # fmt: skip
def test_event_is_kept_when_kept_ones_lie_the_gap_away_on_either_side(times: list[int], left: list[int]) -> None:
    assert kept(times) == left


def test_run_of_kept_events_is_remembered_by_its_two_ends() -> None:
    gate = Gate(50)
    assert [gate.admit(at) for at in range(0, 5_000, 50)] == [True] * 100
    assert gate.stretches == ((0, 4950),)


def test_gate_remembers_the_latest_stretches_only() -> None:
    gate = Gate(50)
    starts = [1000 * n for n in range(STRETCHES_MAX + 2)]
    assert all(gate.admit(at) for at in starts)
    assert gate.stretches == tuple((at, at) for at in starts[2:])
    assert [gate.admit(at) for at in (starts[2], starts[2] + 49, starts[2] - 49)] == [False] * 3
    assert gate.admit(starts[1]), "what was forgotten holds nothing back"
    assert len(gate.stretches) == STRETCHES_MAX


def test_gate_goes_on_from_what_the_state_remembers() -> None:
    first = Gate(100)
    assert [first.admit(at) for at in (0, 100, 1000)] == [True] * 3
    second = Gate(100, first.stretches)
    assert [second.admit(at) for at in (99, 199, 200, 901, 1099, 1100)] == [False, False, True, False, False, True]
