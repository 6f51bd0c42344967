"""Which records of the state topic win, and which of the losers may go."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.errors import FatalError
from pipeline.workers.state import SessionState, encode_state, released
from pipeline.workers.store import Folding, split_key, state_key
from tests.unit.workers.flow import T0, Flow

S1, S2 = b"acme:s1", b"acme:s2"


def written(applied: int) -> bytes:
    flow = Flow(offset=applied)
    flow.clicks("b", T0)
    assert flow.state is not None
    return encode_state(flow.state)


def fold(*records: tuple[bytes, bytes | None]) -> Folding:
    folding = Folding()
    for key, value in records:
        folding.take(key, value)
    return folding.end()


def marker(applied: int) -> bytes:
    return encode_state(released(applied, T0))


def found(folded: Folding, session: bytes) -> tuple[int, int, bool] | None:
    """(applied, generation, whether it is released)"""
    held = folded.sessions.get(session)
    return (held.state.applied, held.generation, held.state.is_released) if held else None


def test_key_is_the_session_and_its_generation() -> None:
    assert state_key(b"acme:s1", 12) == b"acme:s1\x0012"
    assert split_key(b"acme:s1\x0012") == (b"acme:s1", 12)


@pytest.mark.parametrize(
    "key", [b"", b"acme:s1", b"acme:s1\0", b"acme:s1\0-1", b"acme:s1\0x", b"\x0012", b"acme:s1\x001.5"]
)
def test_key_that_no_worker_wrote_is_fatal(key: bytes) -> None:
    with pytest.raises(FatalError):
        split_key(key)


@pytest.mark.parametrize(
    ("records", "best", "losers"),
    [
        ([(10, 1)], (10, 1), []),
        ([(10, 1), (20, 2)], (20, 2), [1]),
        ([(20, 1), (20, 3), (20, 2)], (20, 3), [1, 2]),
        ([(30, 1), (20, 2)], (30, 1), []),
        ([(30, 2), (20, 3), (10, 1)], (30, 2), [1]),
    ],
    ids=["alone", "highest applied", "then highest generation", "a younger loser stays", "only the older loser goes"],
)
def test_highest_applied_then_highest_generation_wins_and_only_older_losers_may_go(
    records: list[tuple[int, int]], best: tuple[int, int], losers: list[int]
) -> None:
    folded = fold(*((state_key(S1, generation), written(applied)) for applied, generation in records))
    assert found(folded, S1) == (*best, False)
    assert sorted(folded.losers) == [state_key(S1, each) for each in losers]
    assert folded.newest_generation == max(generation for _, generation in records)


def test_sessions_are_folded_apart() -> None:
    folded = fold((state_key(S1, 1), written(5)), (state_key(S2, 4), written(9)), (state_key(S2, 2), written(3)))
    assert (found(folded, S1), found(folded, S2)) == ((5, 1, False), (9, 4, False))
    assert folded.losers == [state_key(S2, 2)]
    assert folded.newest_generation == 4


def test_last_record_of_a_key_counts_and_a_tombstone_takes_it_out() -> None:
    folded = fold(
        (state_key(S1, 1), written(5)),
        (state_key(S2, 1), written(5)),
        (state_key(S1, 1), written(7)),
        (state_key(S2, 1), None),
    )
    assert (found(folded, S1), found(folded, S2)) == ((7, 1, False), None)


@pytest.mark.parametrize(
    ("records", "winner", "losers"),
    [
        ([(1, "state", 5), (1, "marker", 5)], (5, 1, True), []),
        ([(1, "marker", 5), (1, "state", 9)], (9, 1, False), []),
        ([(1, "marker", 5), (1, "state", 9), (1, "marker", 9)], (9, 1, True), []),
        ([(1, "marker", 5), (2, "state", 9), (1, None, 0)], (9, 2, False), []),
        ([(1, "state", 5), (2, "marker", 5)], (5, 2, True), [1]),
        ([(2, "marker", 9), (1, "state", 5)], (9, 2, True), [1]),
        ([(3, "state", 5), (2, "marker", 9)], (9, 2, True), []),
        ([(1, "marker", 5), (2, "marker", 5)], (5, 2, True), []),
        ([(2, "marker", 9), (1, "marker", 5)], (9, 2, True), []),
    ],
    ids=["released", "came back", "released again", "came back in another generation", "released by the next generation",
         "a zombie brings an old state", "a younger loser stays", "relied on", "a zombie brings an old marker"],
)  # fmt: skip
def test_markers_of_released_sessions_win_and_lose_as_states_do(
    records: list[tuple[int, str | None, int]], winner: tuple[int, int, bool], losers: list[int]
) -> None:
    made = {"state": written, "marker": marker, None: lambda _: None}
    folded = fold(*((state_key(S1, generation), made[what](applied)) for generation, what, applied in records))
    assert found(folded, S1) == winner
    assert folded.losers == [state_key(S1, each) for each in losers]
    assert folded.newest_generation == max(generation for generation, what, _ in records if what)


def test_empty_topic_has_no_generation() -> None:
    folded = fold()
    assert (len(folded.sessions), folded.losers, folded.newest_generation) == (0, [], -1)


def test_state_of_another_version_stops_the_fold() -> None:
    state = msgspec.msgpack.decode(written(1), type=SessionState)
    other = encode_state(msgspec.structs.replace(state, version=state.version + 1))
    with pytest.raises(FatalError):
        fold((state_key(S1, 1), other))
