"""What a query string may say: parsed exactly, or refused as malformed."""

from __future__ import annotations

import base64

import pytest

from pipeline.errors import MalformedError
from pipeline.query.sessions import SessionId, _read_cursor, parse_id, parse_time


@pytest.mark.parametrize("ms", range(1_795_448_983_000, 1_795_448_984_000))
def test_iso_times_keep_every_millisecond(ms: int) -> None:
    assert parse_time(f"2026-11-23T15:49:43.{ms % 1000:03d}Z", "from") == ms


@pytest.mark.parametrize("text", ["²", "9" * 5000, "9" * 16, "soon", ""])
def test_what_is_no_time_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError) as refused:
        parse_time(text, "from")
    assert refused.value.path == "from"


@pytest.mark.parametrize(("text", "named"), [("s1", SessionId("s1", None)), ("s1~2", SessionId("s1", "2"))])
def test_an_id_names_a_session_or_a_part(text: str, named: SessionId) -> None:
    assert parse_id(text) == named


@pytest.mark.parametrize("text", ["", "~2", "s1~", "s1~2~3", "s1~\0", "a b"])
def test_other_ids_are_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_id(text)


@pytest.mark.parametrize(
    "inside", [b"[1e999,1,1]", b'[Infinity,"s","1"]', b"[" * 40_000, b'[99999999999999999999,"s","1"]', b"{}", b"\xff"]
)
def test_a_forged_cursor_is_malformed(inside: bytes) -> None:
    with pytest.raises(MalformedError):
        _read_cursor(base64.urlsafe_b64encode(inside).decode())
