"""rrweb's lists of positions: which are left, and the bytes of what is."""

from __future__ import annotations

import json

import msgspec
import pytest

from pipeline.workers.positions import thinned
from pipeline.workers.throttle import Gate

T0 = 1_795_448_983_000
CAPTURED = (
    b'{"source":1,"positions":[{"x":341,"y":400,"id":52,"timeOffset":-437},{"x":342,"y":401,"id":52,"timeOffset":-400},'
    b'{"x":350.5,"y":410,"id":61,"timeOffset":-380},{"x":351,"y":411,"id":61,"timeOffset":-6}]}'
)


def left(data: bytes, gap_ms: int = 50) -> bytes | None:
    found = thinned(msgspec.Raw(data), T0, Gate(gap_ms).admit_all)
    return None if found is None else bytes(found)


def test_position_counts_at_the_events_time_plus_its_offset_and_keeps_its_bytes() -> None:
    assert left(CAPTURED) == (
        b'{"source":1,"positions":[{"x":341,"y":400,"id":52,"timeOffset":-437},'
        b'{"x":350.5,"y":410,"id":61,"timeOffset":-380},{"x":351,"y":411,"id":61,"timeOffset":-6}]}'
    )


def test_list_of_which_all_is_kept_is_the_same_object() -> None:
    data = msgspec.Raw(CAPTURED)
    assert thinned(data, T0, Gate(20).admit_all) is data


def test_first_position_may_be_the_one_that_goes() -> None:
    gate = Gate(50)
    gate.admit(T0 - 440)
    found = thinned(msgspec.Raw(CAPTURED), T0, gate.admit_all)
    assert found is not None
    assert [each["timeOffset"] for each in json.loads(bytes(found))["positions"]] == [-380, -6]


def test_list_of_which_none_is_kept_is_none() -> None:
    gate = Gate(1_000)
    gate.admit(T0)
    assert thinned(msgspec.Raw(CAPTURED), T0, gate.admit_all) is None


@pytest.mark.parametrize("source", [b"1", b"6", b"12"])
def test_touch_moves_and_drags_are_lists_of_positions_too(source: bytes) -> None:
    data = b'{"source":%b,"positions":[{"timeOffset":-10},{"timeOffset":0}]}' % source
    assert left(data) == b'{"source":%b,"positions":[{"timeOffset":-10}]}' % source


@pytest.mark.parametrize(
    ("data", "offsets"),
    [
        (
            b' { "positions" : [ {"timeOffset": -60}, {"timeOffset": -20.5} , {"timeOffset":-10 } ] ,"source":1 }',
            [-60, -10],
        ),
        (b'{"\\u0073ource":1,"positions":[{"timeOffset":-60},{"timeOffset":-11}]}', [-60]),
        (b'{"source":1,"positions":[{"timeOffset":-60},{"timeOffset":-11}],"more":[1.50,"\\u00e9"]}', [-60]),
        (b'{"source":1,"positions":[{"timeOffset":-70.9},{"timeOffset":-21}]}', [-70.9, -21]),
        (b'{"source":1,"positions":[{"timeOffset":-70.1},{"timeOffset":-21.9}]}', [-70.1]),
        (b'{"positions":[{"timeOffset":-5}],"source":1,"positions":[{"timeOffset":-60},{"timeOffset":-11}]}', [-60]),
    ],
    ids=[
        "spaces and order",
        "escaped name",
        "another member",
        "floats 50 apart",
        "floats 49 apart",
        "the last of a name",
    ],
)
def test_other_spellings_are_read_as_a_json_reader_does(data: bytes, offsets: list[float]) -> None:
    found = left(data)
    assert found is not None
    assert [each["timeOffset"] for each in json.loads(found)["positions"]] == offsets
    assert {**json.loads(found), "positions": 0} == {**json.loads(data), "positions": 0}


@pytest.mark.parametrize(
    "offset",
    [b'"-50"', b"null", b"true", b"[-50]", b"1e300", b"1e999", b"-86400001", b"86400001", b"9" * 400],
)
def test_offset_that_is_none_counts_as_the_events_own_time(offset: bytes) -> None:
    data = b'{"source":1,"positions":[{"timeOffset":0,"x":1},{"timeOffset":%b,"x":2},{"timeOffset":50,"x":3}]}'
    assert left(data % offset) == b'{"source":1,"positions":[{"timeOffset":0,"x":1},{"timeOffset":50,"x":3}]}'


def test_offset_of_a_page_that_slept_is_believed() -> None:
    data = b'{"source":1,"positions":[{"timeOffset":-86400000},{"timeOffset":-3600000},{"timeOffset":0}]}'
    assert left(data) == data


def test_number_beyond_every_float_elsewhere_harms_nothing() -> None:
    data = b'{"source":1,"positions":[{"x":1e999,"timeOffset":-50},{"x":2,"timeOffset":-20},{"x":3,"timeOffset":0}],"z":-1e999}'
    assert left(data) == data.replace(b'{"x":2,"timeOffset":-20},', b"")


@pytest.mark.parametrize(
    "data",
    [b"null", b"[1]", b'"x"', b"{}", b'{"source":1}', b'{"source":1,"positions":[]}', b'{"source":1,"positions":null}',
     b'{"source":1,"positions":{"timeOffset":0}}', b'{"source":3,"positions":[{"timeOffset":0},{"timeOffset":0}]}',
     b'{"source":1,"positions":[{"timeOffset":0},{"timeOffset":0}],"source":0}',
     b'{"source":true,"positions":[{"timeOffset":0},{"timeOffset":0}]}'],
)  # fmt: skip
def test_what_is_no_list_of_positions_passes_unasked(data: bytes) -> None:
    gate = Gate(50)
    raw = msgspec.Raw(data)
    assert thinned(raw, T0, gate.admit_all) is raw
    assert gate.stretches == ()
