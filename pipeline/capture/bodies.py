"""Bodies as sent → bodies as meant: decompression that is bounded while it runs. Pure."""

from __future__ import annotations

import zlib

import zstandard

from pipeline.errors import MalformedError, TooLargeError, UnsupportedError

ZSTD_WINDOW_BYTES_MAX = 8 << 20
"""RFC 9659: what a decoder of Content-Encoding: zstd must take, and need not exceed."""

ZSTD_SLICE_BYTES = 256
"""Fed at once: 4 bytes of zstd can stand for a block of 128 KiB, so one step gives at most 8 MiB."""

_GZIP = 31
"""zlib's wbits for a gzip wrapper."""


def decode_body(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Undoes Content-Encoding: gzip, zstd or identity. Raises UnsupportedError, TooLargeError or MalformedError; never
    holds more than `limit_bytes` (and a chunk) of output."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            return _gunzip(body, limit_bytes)
        case "zstd":
            return _unzstd(body, limit_bytes)
    raise UnsupportedError("Content-Encoding must be gzip, zstd or identity")


def _gunzip(body: bytes, limit_bytes: int) -> bytes:
    out: list[bytes] = []
    left = limit_bytes
    try:
        while body:  # a gzip file may have several members
            member = zlib.decompressobj(_GZIP)
            out.append(member.decompress(body, left + 1))
            left -= len(out[-1])
            if left < 0:
                raise _too_large(limit_bytes)
            if not member.eof:
                raise MalformedError("the gzip body is cut short")
            body = member.unused_data
    except zlib.error:
        raise MalformedError("the body is not gzip, whatever Content-Encoding says") from None
    return b"".join(out)


def _unzstd(body: bytes, limit_bytes: int) -> bytes:
    context = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    out: list[bytes] = []
    left = limit_bytes
    frame = context.decompressobj()
    begun = False
    try:
        for start in range(0, len(body), ZSTD_SLICE_BYTES):
            rest = body[start : start + ZSTD_SLICE_BYTES]
            while rest:  # a body may have several frames
                out.append(frame.decompress(rest))
                left -= len(out[-1])
                if left < 0:
                    raise _too_large(limit_bytes)
                begun, rest = not frame.eof, frame.unused_data
                if frame.eof:
                    frame = context.decompressobj()
    except zstandard.ZstdError:
        raise MalformedError("the body is not zstd with a window of at most 8 MiB") from None
    if begun:
        raise MalformedError("the zstd body is cut short")
    return b"".join(out)


def _too_large(limit_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is above REPLAY_DECODED_BYTES_MAX = {limit_bytes} bytes once decompressed")
