"""Every byte that a stack keeps or tells, but the raw log and the dead letters: those hold raw bytes by design."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import lz4.block
import re2
import zstandard

from pipeline.load.arrivals import read_topic
from pipeline.local.status import status
from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from tests.canaries import forms, opened

Found = tuple[str, bytes]
"""Where it stood, and the bytes."""

LZ4, ZSTD, PLAIN = 0x82, 0x90, 0x02
CHECKSUM_BYTES = 16
HEADER = struct.Struct("<BII")


class Search:
    """Which of many secrets stand in a text, in any form; one automaton over all of their forms."""

    def __init__(self, secrets: Iterable[str]) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = 1 << 30
        self._set = re2.Set.SearchSet(options)
        self._secrets: list[str] = []
        for secret in secrets:
            for form in forms(secret):
                self._set.Add(re.escape(form))
                self._secrets.append(secret)
        self._set.Compile()

    def __call__(self, text: bytes) -> set[str]:
        return {self._secrets[at] for at in self._set.Match(opened(text)) or ()}


def raw_log(settings: Settings) -> bytes:
    """What was sent, as it lies on replay.batches: the search must find it there, else it finds nothing anywhere."""
    topics = catalogue(settings)
    codec = Codecs(topics, schema_ids(settings)).batches
    texts = []
    for message in read_topic(settings, topics.batches):
        try:
            batch = codec.decode(message.value())
        except Exception:  # another test's poison
            continue
        texts.append(
            b"\n".join([batch.payload, batch.metadata.url.encode(), batch.metadata.user_agent.encode()])
            + (batch.client_version or "").encode()
        )
    return b"\n".join(texts)


def everything(settings: Settings) -> Iterator[Found]:
    yield from topics_of(settings)
    yield from tables_of(settings)
    yield from answers_of(settings)
    yield from files_of(settings)


def topics_of(settings: Settings) -> Iterator[Found]:
    """Keys and values of clean records, session updates and state as they were written, and every dead letter's words."""
    topics = catalogue(settings)
    for topic in (topics.clean, topics.sessions, topics.state):
        for message in read_topic(settings, topic):
            yield (
                f"{topic.name} {message.partition()}:{message.offset()}",
                (message.key() or b"") + b"\n" + (message.value() or b""),
            )
    codec = Codecs(topics, schema_ids(settings)).dead_letters
    for message in read_topic(settings, topics.dead_letters):
        dead = codec.decode(message.value())
        yield f"{topics.dead_letters.name} {message.offset()}", f"{dead.reason}\n{dead.detail}".encode()


def tables_of(settings: Settings) -> Iterator[Found]:
    """Every column of every row."""
    warehouse = ClickHouse(settings)
    names = [
        name
        for (name,) in warehouse.rows(
            "SELECT name FROM system.tables WHERE database = {name:String}", name=warehouse.database
        )
    ]
    assert {"events", "sessions", "blocks", "minutes"} <= set(names)
    url = f"http://127.0.0.1:{settings.warehouse_port}/"
    for name in names:
        sql = f"SELECT * FROM `{warehouse.database}`.`{name}` FORMAT JSONEachRow"
        answer = httpx.post(url, content=sql, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        yield f"table {name}", answer.content


def answers_of(settings: Settings) -> Iterator[Found]:
    """What a part tells who asks for its health or its metrics."""
    for part in status(settings):
        if part.address.startswith("http"):
            for path in ("/metrics", "/healthz", "/readyz"):
                answer = httpx.get(f"{part.address}{path}", timeout=10, trust_env=False)
                yield f"{part.name} {path}", answer.content


def files_of(settings: Settings) -> Iterator[Found]:
    """Every file of the home, unpacked where it is compressed: logs, objects and manifests, the engine's own parts."""
    own = catalogue(settings)
    raw = (f"{own.batches.name}-", f"{own.dead_letters.name}-")
    seen = set()
    for path in sorted(settings.home.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.parent.name.startswith(raw):
            try:
                body = path.read_bytes()
            except FileNotFoundError:  # the engine merged it away meanwhile
                continue
            where = path.relative_to(settings.home)
            seen.add(where.parts[0])
            yield str(where), body
            yield f"{where}, unpacked", unpacked(path, body)
    assert {"kafka", "warehouse", "objects", "logs"} <= seen


def unpacked(path: Path, body: bytes) -> bytes:
    if path.name.endswith(".zst"):
        return zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
    return column_bytes(body) if path.suffix == ".bin" else b""


def column_bytes(body: bytes) -> bytes:
    """A column's file as the engine writes it: blocks of a checksum, a method, two sizes (its own and unpacked), data."""
    out, at = [], 0
    while at + CHECKSUM_BYTES + HEADER.size <= len(body):
        method, size, plain_size = HEADER.unpack_from(body, at + CHECKSUM_BYTES)
        data = body[at + CHECKSUM_BYTES + HEADER.size : at + CHECKSUM_BYTES + size]
        if method == LZ4:
            out.append(lz4.block.decompress(data, uncompressed_size=plain_size))
        elif method == ZSTD:
            out.append(zstandard.ZstdDecompressor().decompress(data, max_output_size=plain_size))
        elif method == PLAIN:
            out.append(data)
        at += CHECKSUM_BYTES + size
    return b"".join(out)
