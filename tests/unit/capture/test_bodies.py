"""Compressed bodies: whole or refused, bounded while they grow."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from pipeline.capture.bodies import decode_body
from pipeline.errors import MalformedError, TooLargeError, UnsupportedError

PLAIN = b'{"a":1}\n' * 50_000
ROOM = 1 << 20
COMPRESS = {"gzip": gzip.compress, "zstd": lambda plain: zstandard.ZstdCompressor().compress(plain)}


@pytest.mark.parametrize("encoding", COMPRESS)
def test_several_members_or_frames_are_one_body(encoding: str) -> None:
    packed = COMPRESS[encoding](PLAIN)
    assert decode_body(packed + packed, encoding, ROOM) == PLAIN + PLAIN


@pytest.mark.parametrize("cut", [1, 3, 5])
@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_truncated_body_is_refused_and_never_half_taken(encoding: str, cut: int) -> None:
    with pytest.raises(MalformedError):
        decode_body(COMPRESS[encoding](PLAIN)[:-cut], encoding, ROOM)


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_bomb_is_refused(encoding: str) -> None:
    with pytest.raises(TooLargeError):
        decode_body(COMPRESS[encoding](bytes(32 << 20)), encoding, ROOM)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip"])
def test_other_and_stacked_encodings_are_unsupported(encoding: str) -> None:
    with pytest.raises(UnsupportedError):
        decode_body(b"x", encoding, ROOM)
