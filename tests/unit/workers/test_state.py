"""What a session's state holds, how much at most, and who may read it."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.errors import FatalError
from pipeline.model.batches import Metadata
from pipeline.workers.kinds import GAPS_MAX
from pipeline.workers.rules import Rules
from pipeline.workers.state import (
    BATCH_HASH_BYTES,
    SessionState,
    batch_hash,
    decode_state,
    encode_state,
    is_marker,
    released,
    remember,
    was_seen,
)
from tests.unit.workers.flow import HOUR_MS, T0, Flow, batch, line

RECORD_BYTES_MAX = 1 << 20


def test_state_comes_back_as_it_was_written() -> None:
    flow = Flow()
    lines = [
        line("mousemove", T0),
        line("scroll", T0),
        line("click", T0, {"x": 1.5, "y": 2}),
        line("click", T0 + HOUR_MS),
    ]
    flow.send(batch("b", *lines, user_id="u"))
    assert flow.state is not None
    assert decode_state(encode_state(flow.state)) == flow.state


@pytest.mark.parametrize("value", [b"", b"\xc1", b"{}", msgspec.msgpack.encode([1, "acme"]), b"\0" * 40])
def test_state_that_is_none_is_fatal(value: bytes) -> None:
    with pytest.raises(FatalError):
        decode_state(value)


def test_released_session_is_a_few_bytes_that_come_back() -> None:
    left = released(2**40, T0)
    assert left.is_released
    assert len(encode_state(left)) < 32
    assert is_marker(encode_state(left))
    assert decode_state(encode_state(left)) == left
    flow = Flow()
    flow.clicks("b", T0)
    assert flow.state is not None
    assert not flow.state.is_released
    assert not is_marker(encode_state(flow.state))


def test_marker_of_an_earlier_worker_is_read() -> None:
    """Versions 1 and 2 wrote three members."""
    for version in (1, 2):
        value = msgspec.msgpack.encode([version, 7, T0])
        assert is_marker(value)
        assert decode_state(value) == released(7, T0)


def test_erased_session_is_a_few_bytes_that_come_back() -> None:
    left = released(7, T0, erased=True)
    assert len(encode_state(left)) < 32
    assert is_marker(encode_state(left))
    assert decode_state(encode_state(left)) == left


@pytest.mark.parametrize("version", [0, 4])
def test_marker_of_another_version_is_fatal_too(version: int) -> None:
    with pytest.raises(FatalError, match=r"version .* delete replay.state"):
        decode_state(msgspec.msgpack.encode([version, 5, T0]))


def test_state_of_another_version_is_fatal() -> None:
    flow = Flow()
    flow.clicks("b", T0)
    assert flow.state is not None
    for version in (0, flow.state.version + 1):
        with pytest.raises(FatalError, match="version"):
            decode_state(encode_state(msgspec.structs.replace(flow.state, version=version)))


def test_state_of_an_earlier_worker_is_read_with_open_gates_and_a_full_bucket() -> None:
    """Windows without gaps of other types, sessions without a bucket: members that were added at the end since."""
    flow = Flow()
    flow.send(batch("b", line("mousemove", T0), line("click", T0)))
    assert flow.state is not None
    session = msgspec.msgpack.decode(encode_state(flow.state))
    bucket, windows = session[9], session[7]
    earlier = [*session[:7], [window[:4] for window in windows], session[8]]
    assert bucket > 0
    earlier[0] = 1
    found = decode_state(msgspec.msgpack.encode(earlier))
    assert found == msgspec.structs.replace(flow.state, full_at_us=0)
    assert found.clock_correction_ms == 0, "its earlier events were not shifted: its later ones shall not be"


def worst_part(n: int) -> tuple[bytes, ...]:
    """Sixty URLs of 64 KB in characters of four bytes, moves too far apart to share a stretch, a burst of clicks."""
    wide, start = "\U0001f6d2" * (64 << 10 >> 2), T0 + n * 2 * HOUR_MS
    navigated = [
        f'{{"type":"navigation","timestamp":{start + k},"data":{{"url":"http://{n}.{k}/{wide}"}}}}' for k in range(60)
    ]
    moves = [line(kind, start + 1_000 * k) for k in range(12) for kind in ("mousemove", "scroll")]
    clicks = [line("click", start + k, {"x": 1e9, "y": 0.1}) for k in range(3)]
    return (*(each.encode() for each in navigated), *moves, *clicks)


def worst_state() -> SessionState:
    others = {f"{n:064}x"[1:]: 1 for n in range(GAPS_MAX)}
    flow = Flow(Rules(other_gaps_ms=others, session_bytes_per_s=1))
    page = Metadata(user_agent="\U0001f6d2" * 4_096, url="\U0001f6d2" * 4_096)
    ids = {"tenant": "t" * 128, "session_id": "s" * 128, "user_id": "\U0001f6d2" * 256, "metadata": page}
    for n in range(6):
        flow.send(batch(f"p{n}", *worst_part(n), **ids))
        for k in range(20):
            clicks = [line(3, T0 + n * 2 * HOUR_MS + 90 * j, {"source": 2, "type": 2}) for j in range(20)]
            flow.send(batch(f"p{n}.{k}", *clicks, window_id=f"{k:0128}", source="rrweb", **ids))
    for n in range(2_000):
        kinds = ("mousemove", "scroll", *others) if n > 1_980 else ()
        moves = [line(kind, T0 + 1_000 * k) for k in range(12) for kind in kinds]
        flow.send(batch(f"w{n}", *moves, window_id=f"{n:0128}", **ids))
    assert flow.state is not None
    return flow.state


def test_state_of_the_nastiest_session_stays_bounded() -> None:
    state = worst_state()
    assert len(state.parts) == 4
    assert all(len(part.urls) == 50 for part in state.parts)
    assert all(len(url) <= 1_024 for part in state.parts for url in (*part.urls, part.first_url, part.last_url))
    assert [window.window_id for window in state.windows] == [f"{n:0128}" for n in range(1_984, 2_000)]
    assert all(len(window.mousemove) == len(window.scroll) == 8 for window in state.windows)
    assert all(len(each) == 8 for window in state.windows for each in window.others.values())
    assert all(len(window.others) == GAPS_MAX for window in state.windows)
    assert all(len(part.watched) == 16 for part in state.parts)
    assert all(len(watched.clicks) == 16 for part in state.parts for watched in part.watched)
    assert len(state.batch_ids) == 512 * BATCH_HASH_BYTES
    assert len(encode_state(state)) < RECORD_BYTES_MAX


def test_window_used_again_is_not_the_one_forgotten() -> None:
    flow = Flow()
    for n in range(16):
        flow.send(batch(f"b{n}", window_id=f"w{n}"))
    flow.send(batch("again", window_id="w0"))
    flow.send(batch("new", window_id="w16"))
    assert flow.state is not None
    assert {window.window_id for window in flow.state.windows} == {"w0", *(f"w{n}" for n in range(2, 17))}


def test_hash_is_found_only_where_one_was_put() -> None:
    first, second = bytes(range(8)), bytes(range(8, 16))
    ids = remember(remember(b"", first), second)
    assert was_seen(ids, first)
    assert was_seen(ids, second)
    assert not was_seen(ids, (first + second)[4:12])
    assert was_seen(remember(ids, (first + second)[4:12]), (first + second)[4:12])
    assert batch_hash("b/1") != batch_hash("b/2")
