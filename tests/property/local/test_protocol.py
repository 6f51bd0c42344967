"""Requests of any shape: bodies come out as they went in, cut and oversized ones are refused, data stays data."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.local.protocol import ProtocolError, decompress, statement

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.compress,
}
LIMIT = 1 << 20
encodings = st.sampled_from(sorted(PACK))


@given(encodings, st.lists(st.binary(max_size=5000), max_size=4))
def test_frames_one_after_the_other_are_one_body(encoding: str, frames: list[bytes]) -> None:
    assert decompress(b"".join(map(PACK[encoding], frames)), encoding, LIMIT) == b"".join(frames)


@given(encodings, st.binary(min_size=1, max_size=3000), st.data())
def test_a_body_cut_anywhere_is_refused(encoding: str, body: bytes, data: st.DataObject) -> None:
    packed = PACK[encoding](body)
    cut = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(ProtocolError, match=r"Code: 271\."):
        decompress(packed[:cut], encoding, LIMIT)


@given(encodings, st.binary(max_size=3000))
def test_any_bytes_give_a_body_or_a_protocol_error(encoding: str, body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert len(decompress(body, encoding, LIMIT)) <= LIMIT


@given(encodings, st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.integers(0, 4000))
def test_the_limit_is_on_what_is_unpacked(encoding: str, sizes: list[int], limit: int) -> None:
    packed = b"".join(PACK[encoding](bytes(size)) for size in sizes)
    if sum(sizes) <= limit:
        assert len(decompress(packed, encoding, limit)) == sum(sizes)
    else:
        with pytest.raises(ProtocolError, match=r"Code: 241\."):
            decompress(packed, encoding, limit)


@given(st.binary(max_size=300))
def test_the_data_of_an_insert_reaches_the_engine_byte_for_byte(data: bytes) -> None:
    by_url = statement("POST", {"query": "INSERT INTO t FORMAT Native"}, "", data)
    by_body = statement("POST", {}, "", b"INSERT INTO t FORMAT Native\n" + data)
    assert by_url.data == by_body.data == data
    assert by_url.insert_format == by_body.insert_format == "Native"


@given(st.text(max_size=200))
def test_a_quoted_text_never_makes_a_second_statement(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    sql = f"SELECT '{quoted}'"
    assert statement("POST", {}, "", sql.encode()).sql == sql
    with pytest.raises(ProtocolError, match=r"Code: 62\."):
        statement("POST", {}, "", f"{sql}; SELECT 2".encode())
