"""The gate against a model that keeps every kept time of what it remembers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.workers.throttle import Gate, Stretches

REMEMBERED_STRETCHES = 8
GAPS = st.sampled_from([1, 7, 50, 100])


class AllKept:
    """Every kept time of the latest eight stretches; a stretch is a run of kept times less than two gaps apart."""

    def __init__(self, gap_ms: int) -> None:
        self.gap_ms = gap_ms
        self.times: list[int] = []

    def admit(self, at_ms: int) -> bool:
        if any(abs(at_ms - each) < self.gap_ms for each in self.times):
            return False
        self.times = [at for run in self.runs([*self.times, at_ms])[-REMEMBERED_STRETCHES:] for at in run]
        return True

    def runs(self, times: list[int]) -> list[list[int]]:
        runs: list[list[int]] = []
        for at in sorted(times):
            if runs and at - runs[-1][-1] < 2 * self.gap_ms:
                runs[-1].append(at)
            else:
                runs.append([at])
        return runs


def times_for(gap_ms: int) -> st.SearchStrategy[list[int]]:
    """Crowded and sparse times mixed, multiples of the gap and their neighbours among them, in any order."""
    on_the_edge = st.builds(lambda n, by: max(0, n * gap_ms + by), st.integers(0, 60), st.integers(-1, 1))
    return st.lists(st.one_of(st.integers(0, 60 * gap_ms), on_the_edge), max_size=80)


@settings(deadline=None, max_examples=250)
@given(data=st.data(), gap_ms=GAPS)
def test_event_is_kept_iff_every_remembered_kept_one_lies_the_gap_away(data: st.DataObject, gap_ms: int) -> None:
    gate, model = Gate(gap_ms), AllKept(gap_ms)
    for at in data.draw(times_for(gap_ms)):
        assert gate.admit(at) == model.admit(at), at
    assert gate.stretches == tuple((run[0], run[-1]) for run in model.runs(model.times))
    assert len(gate.stretches) <= REMEMBERED_STRETCHES


@settings(deadline=None, max_examples=150)
@given(data=st.data(), gap_ms=GAPS, cuts=st.lists(st.integers(0, 80)))
def test_any_chunking_into_batches_keeps_the_same_events(data: st.DataObject, gap_ms: int, cuts: list[int]) -> None:
    times = data.draw(times_for(gap_ms))
    model = AllKept(gap_ms)
    wanted = [at for at in times if model.admit(at)]
    edges = sorted({0, len(times), *(cut for cut in cuts if cut < len(times))})
    kept: list[int] = []
    carried: Stretches = ()
    for first, last in pairwise(edges):
        gate = Gate(gap_ms, carried)
        kept += [at for at in times[first:last] if gate.admit(at)]
        carried = gate.stretches
    assert kept == wanted


@settings(deadline=None, max_examples=150)
@given(data=st.data(), gap_ms=GAPS)
def test_in_order_the_next_kept_one_is_the_first_the_gap_after_the_last(data: st.DataObject, gap_ms: int) -> None:
    times = sorted(data.draw(times_for(gap_ms)))
    wanted: list[int] = []
    for at in times:
        if not wanted or at >= wanted[-1] + gap_ms:
            wanted.append(at)
    gate = Gate(gap_ms)
    assert [at for at in times if gate.admit(at)] == wanted


@settings(deadline=None, max_examples=100)
@given(data=st.data(), gap_ms=GAPS)
def test_no_two_kept_of_what_is_remembered_are_nearer_than_the_gap(data: st.DataObject, gap_ms: int) -> None:
    gate = Gate(gap_ms)
    for at in data.draw(times_for(gap_ms)):
        gate.admit(at)
        for (_, high), (low, _) in pairwise(gate.stretches):
            assert low - high >= 2 * gap_ms
