"""The warehouse's rows, made as columns, are those that the plain way makes one by one, whatever clients send."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.batches import CleanBatch
from pipeline.sinks.rows import event_rows
from tests.property.sinks import naive
from tests.unit.sinks import clean

NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**400)
WORDS = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=5)
VALUES = st.recursive(
    NUMBERS | WORDS | st.none() | st.booleans(), lambda inner: st.lists(inner, max_size=2), max_leaves=4
)
MEMBERS = ("url", "target", "text", "value", "x", "y", "scrollX", "scrollY", "type", "args", "message", "reason",
           "source", "href", "plugin", "payload", "tag", "level")  # fmt: skip
USUAL = st.fixed_dictionaries({"x": st.integers(0, 2_000), "y": st.integers(0, 2_000)})
DATA = USUAL | st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=6) | VALUES
TYPES = st.sampled_from(["mousemove", "scroll", "click", "input", "console", "error", "promise_error", "of my own", "", 2, 3, 4, 5, 6])  # fmt: skip
TIMES = st.integers(0, 2**41) | st.integers(-(2**70), 2**70)
EVENTS = st.lists(st.tuples(TYPES, TIMES, DATA), max_size=8)
NOT_UTF8 = b'{"type":"mousemove","timestamp":1,"data":{"x":1,"url":"\xff"}}'


@st.composite
def batches(draw: st.DrawFn) -> list[CleanBatch]:
    found = []
    for offset, events in enumerate(draw(st.lists(EVENTS, min_size=1, max_size=4))):
        lines = [
            json.dumps({"type": kind, "timestamp": at, "data": data}, separators=(",", ":")).encode()
            for kind, at, data in events
        ] + [NOT_UTF8] * draw(st.integers(0, 1))
        starts = sorted(draw(st.lists(st.integers(0, len(lines)), max_size=3)))
        found.append(
            clean.batch(
                offset,
                source=draw(st.sampled_from(["portable", "rrweb", "posthog"])),
                session_id=draw(st.sampled_from(["s1", "s2"])),
                payload=b"\n".join(lines),
                event_count=len(lines),
                next_parts=tuple(clean.part_start(index, str(n + 1)) for n, index in enumerate(starts)),
            )
        )
    return found


@settings(max_examples=400, deadline=None)
@given(batches())
def test_columns_equal_rows_made_one_by_one(found: list[CleanBatch]) -> None:
    assert plain(event_rows(found)) == naive.event_rows(found)


@settings(max_examples=400, deadline=None)
@given(batches())
def test_a_text_that_repeats_is_in_its_dictionary_once(found: list[CleanBatch]) -> None:
    table = event_rows(found).unify_dictionaries()
    words = {name: column.chunk(0).dictionary for name, column in zip(table.column_names, table.columns, strict=True)
             if pa.types.is_dictionary(column.type)}  # fmt: skip
    assert {"session_id", "part", "type", "url"} <= set(words)
    assert [name for name, known in words.items() if len(known) != len(set(known.to_pylist()))] == []


def plain(table: pa.Table) -> list[dict[str, Any]]:
    at = table.schema.get_field_index("ts")
    return table.set_column(at, "ts", table.column("ts").cast("int64")).to_pylist()
