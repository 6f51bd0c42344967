"""ClickHouse's HTTP interface, the pure half: what a request asks for, and how bodies are packed.

Follows the server's documented interface (query, body, param_…, settings, compression, exception code header) as far as
clickhouse-connect, curl and BI tools use it. Knows nothing of sockets and nothing of the engine.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP

import lz4.frame
import zstandard

_COMMENTS = rb"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*"
_INSERT = re.compile(_COMMENTS + rb"INSERT\s", re.I | re.S)
_INSERT_FORMAT = re.compile(rb"\bFORMAT[ \t\r\n]+([A-Za-z0-9]+)[ \t\r]*;?(?:\n|\s|$)", re.I)
_INSERT_FROM = re.compile(rb"\b(?:SELECT|WITH|VALUES|INFILE)\b", re.I)
_OUTPUT_FORMAT = re.compile(r"\bFORMAT\s+([A-Za-z0-9]+)\s*(?:SETTINGS\b.*)?;?\s*$", re.I | re.S)
_READS = re.compile(
    _COMMENTS.decode() + r"\(*\s*(SELECT|WITH|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|CHECK|VALUES)\b", re.I | re.S
)
_KAFKA_ENGINE = re.compile(_COMMENTS + rb"(?:CREATE|ATTACH|REPLACE)\s.*\bENGINE\s*=?\s*Kafka\b", re.I | re.S)
#: What may hold a semicolon that ends nothing, or one that does.
_SEMICOLON = re.compile(
    r"""'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+"|`(?:[^`\\]++|\\.)*+`|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|(;)""",
    re.S,
)
_NOTHING = re.compile(_COMMENTS.decode() + r"(?:;\s*)*(?:--[^\n]*)?\Z", re.S)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_EXCEPTION_CODE = re.compile(r"Code: (\d+)\. DB::Exception")

INSERT_HEAD_BYTES = 64 << 10
"""How far into a body an INSERT's FORMAT is looked for: what follows is data, and data may look like anything."""
ZSTD_SLICE_BYTES = 2 << 10
"""Four bytes can unpack to a block of 128 KiB, so one slice adds at most 64 MiB before the limit is looked at."""

_NOT_SETTINGS = frozenset(
    [
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "query_id",
        "session_id",
        "session_timeout",
        "session_check",
        "compress",
        "decompress",
        "wait_end_of_query",
        "buffer_size",
        "role",
        "quota_key",
        "client_protocol_version",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
        "add_http_cors_header",
    ]
)

#: HTTP status by exception code, where it is not 500 (the server's own mapping).
_STATUS = {516: 403, 194: 403, 497: 403, 164: 403, 62: 400, 36: 400, 6: 400, 53: 400, 27: 400, 72: 400, 48: 501,
           60: 404, 81: 404, 47: 404, 46: 404, 202: 503, 159: 408, 373: 409, 271: 400}  # fmt: skip
UNKNOWN_EXCEPTION = 1002


class ProtocolError(Exception):
    """A request that never reaches the engine; `code` is ClickHouse's exception code for it."""

    def __init__(self, code: int, name: str, detail: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {detail}. ({name})")


@dataclass(frozen=True)
class _Common:
    """What every statement is run under."""

    database: str | None
    settings: dict[str, str]
    parameters: dict[str, str]
    readonly: bool


@dataclass(frozen=True)
class Statement:
    """One request, taken apart. `data` is what an INSERT brings along, in `insert_format`."""

    sql: str
    insert_format: str | None
    data: bytes
    output_format: str | None
    reads: bool
    under: _Common


@dataclass(frozen=True)
class Reply:
    """What the engine gave. `format` is None for statements that return nothing."""

    body: bytes
    format: str | None
    summary: dict[str, int] = field(default_factory=dict)


def statement(method: str, query: dict[str, str], content_type: str, body: bytes) -> Statement:
    """Takes a decompressed request apart. Raises ProtocolError."""
    if content_type.startswith("multipart/form-data"):
        query, body = {**query, **_form(content_type, body)}, b""
    text, data = (query["query"].encode(), body) if query.get("query") else (body, b"")
    if _KAFKA_ENGINE.match(text[:INSERT_HEAD_BYTES]):
        raise ProtocolError(
            48,
            "NOT_IMPLEMENTED",
            "the embedded engine cannot hold a Kafka table: a failed one keeps it from starting again",
        )
    settings = {
        name: value
        for name, value in query.items()
        if name not in _NOT_SETTINGS and not name.startswith("param_") and _NAME.fullmatch(name)
    }
    parameters = {name.removeprefix("param_"): value for name, value in query.items() if name.startswith("param_")}
    common = _Common(query.get("database"), settings, parameters, method in {"GET", "HEAD"})
    if _INSERT.match(text[:INSERT_HEAD_BYTES]):
        found = _INSERT_FORMAT.search(text, 0, INSERT_HEAD_BYTES)
        if found and not _INSERT_FROM.search(text, 0, found.start()):
            sql, insert_format = text[: found.start()].decode(), found[1].decode()
            return Statement(sql, insert_format, text[found.end() :] + data, None, False, common)
    sql = (text + (b"\n" + data if data else b"")).decode()
    _one_statement(sql)
    asked = _OUTPUT_FORMAT.search(sql)
    output = asked[1] if asked else query.get("default_format", "TabSeparated")
    return Statement(sql, None, b"", output, bool(_READS.match(sql)), common)


def _one_statement(sql: str) -> None:
    """The server refuses more than one statement a request; the engine would run them all."""
    if ";" not in sql.rstrip("; \n\t\r"):
        return
    end = next((found.end() for found in _SEMICOLON.finditer(sql) if found[2]), len(sql))
    if not _NOTHING.match(sql, end):
        raise ProtocolError(62, "SYNTAX_ERROR", f"multi-statements are not allowed: something follows character {end}")


def literal(text: str) -> str:
    """A text as a ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def exception(text: str) -> tuple[int, int, str]:
    """(HTTP status, exception code, message) of an engine's or a protocol error's text."""
    start = text.find("Code: ")
    message = text[start:] if start > 0 else text
    found = _EXCEPTION_CODE.search(message)
    code = int(found[1]) if found else UNKNOWN_EXCEPTION
    return _STATUS.get(code, 500), code, message


def decompress(data: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Unpacks a body of one or many frames: clickhouse-connect sends one a block. Never more than `limit_bytes`."""
    if encoding in {"", "identity"}:
        return data
    if encoding == "gzip":
        return _unpack(lambda: zlib.decompressobj(31), data, limit_bytes)
    if encoding == "deflate":
        return _unpack(zlib.decompressobj, data, limit_bytes)
    if encoding == "lz4":
        return _unpack(lz4.frame.LZ4FrameDecompressor, data, limit_bytes)
    if encoding == "zstd":
        return _unzstd(data, limit_bytes)
    raise ProtocolError(36, "BAD_ARGUMENTS", "unknown compression method")


def _unpack(decompressor, data: bytes, limit_bytes: int) -> bytes:  # type: ignore[no-untyped-def]
    out: list[bytes] = []
    size = 0
    try:
        while data:
            frame = decompressor()
            out.append(frame.decompress(data, limit_bytes - size + 1))
            size += len(out[-1])
            if size > limit_bytes:
                raise ProtocolError(241, "MEMORY_LIMIT_EXCEEDED", f"the body is above {limit_bytes} bytes unpacked")
            if not frame.eof:
                raise ProtocolError(271, "CANNOT_DECOMPRESS", "the body is cut short")
            data = frame.unused_data or b""
    except (zlib.error, RuntimeError):
        raise ProtocolError(271, "CANNOT_DECOMPRESS", "the body is not what Content-Encoding says") from None
    return b"".join(out)


def _unzstd(data: bytes, limit_bytes: int) -> bytes:
    """Frame by frame in small slices: this library's one object that tells a frame cut short takes no output limit."""
    out: list[bytes] = []
    size = 0
    frame = None
    for start in range(0, len(data), ZSTD_SLICE_BYTES):
        piece = data[start : start + ZSTD_SLICE_BYTES]
        while piece:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                out.append(frame.decompress(piece))
            except zstandard.ZstdError:
                raise ProtocolError(271, "CANNOT_DECOMPRESS", "the body is not what Content-Encoding says") from None
            size += len(out[-1])
            if size > limit_bytes:
                raise ProtocolError(241, "MEMORY_LIMIT_EXCEEDED", f"the body is above {limit_bytes} bytes unpacked")
            piece = b""
            if frame.eof:
                piece, frame = frame.unused_data, None
    if frame is not None:
        raise ProtocolError(271, "CANNOT_DECOMPRESS", "the body is cut short")
    return b"".join(out)


def compress(data: bytes, accepted: str) -> tuple[bytes, str | None]:
    """Packs an answer in the first encoding the client accepts that we speak."""
    for offer in (each.split(";")[0].strip() for each in accepted.split(",")):
        if offer == "lz4":
            return lz4.frame.compress(data, compression_level=0), offer
        if offer == "zstd":
            return zstandard.ZstdCompressor(level=1).compress(data), offer
        if offer == "gzip":
            return gzip.compress(data, 3), offer
    return data, None


def _form(content_type: str, body: bytes) -> dict[str, str]:
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    found = {}
    for part in message.iter_parts():  # type: ignore[attr-defined]
        name = part.get_param("name", header="content-disposition")
        if name:
            found[str(name)] = bytes(part.get_payload(decode=True)).decode()
    return found
