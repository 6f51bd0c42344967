"""Memory follows live sessions, not history. `tests/bench/memory.py` measures it at full size."""

from __future__ import annotations

import gc
import tracemalloc

from tests.bench.memory import Nowhere, passing

SESSIONS, ALIVE = 3_000, 200


def test_memory_is_flat_while_sessions_pass_and_each_is_released_once_and_still_known() -> None:
    outputs = Nowhere()
    held: dict[int, int] = {}
    tracemalloc.start()
    try:
        for passed, assigned in passing(SESSIONS, ALIVE, outputs):
            if passed in (SESSIONS // 4, SESSIONS):
                gc.collect()
                held[passed] = tracemalloc.get_traced_memory()[0]
            sessions = assigned.partitions[0].sessions
            assert len(sessions) <= ALIVE + ALIVE // 10
    finally:
        tracemalloc.stop()
    assert held[SESSIONS] < 1.02 * held[SESSIONS // 4]
    assert sessions.get(b"acme:session-00000000-2f9c") is not None
    assert outputs.states == SESSIONS + (SESSIONS - len(sessions)), "a state each, and a marker for each released"
