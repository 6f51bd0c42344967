"""Which records of the state topic win, and which of the losers may go."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.errors import FatalError
from pipeline.workers.state import SessionState, encode_state
from pipeline.workers.store import fold, split_key, state_key
from tests.unit.workers.flow import T0, Flow

S1, S2 = b"acme:s1", b"acme:s2"


def written(applied: int) -> bytes:
    flow = Flow(offset=applied)
    flow.clicks("b", T0)
    assert flow.state is not None
    return encode_state(flow.state)


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
    folded = fold({state_key(S1, generation): written(applied) for applied, generation in records})
    assert (folded.best[S1].state.applied, folded.best[S1].generation) == best
    assert sorted(folded.losers) == [state_key(S1, each) for each in losers]
    assert folded.newest_generation == max(generation for _, generation in records)


def test_sessions_are_folded_apart() -> None:
    folded = fold({state_key(S1, 1): written(5), state_key(S2, 4): written(9), state_key(S2, 2): written(3)})
    assert {key: (held.state.applied, held.generation) for key, held in folded.best.items()} == {S1: (5, 1), S2: (9, 4)}
    assert folded.losers == [state_key(S2, 2)]
    assert folded.newest_generation == 4


def test_empty_topic_has_no_generation() -> None:
    folded = fold({})
    assert (folded.best, folded.losers, folded.newest_generation) == ({}, [], -1)


def test_state_of_another_version_stops_the_fold() -> None:
    state = msgspec.msgpack.decode(written(1), type=SessionState)
    other = encode_state(msgspec.structs.replace(state, version=state.version + 1))
    with pytest.raises(FatalError):
        fold({state_key(S1, 1): other})
