"""The replay object, byte by byte, by the picture in the module's docstring and RFC 8878."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import zstandard

from pipeline.errors import PoisonError
from pipeline.model.batches import CleanBatch
from pipeline.model.blocks import Manifest
from pipeline.storage.blocks import PackedObject, Place, manifest_key, pack, read_block, read_manifest
from tests import recordings
from tests.support import need
from tests.unit.sinks.clean import AUGUST_MS, SEPTEMBER_MS, batch, clicks, part_start

PLACE = Place("replay.batches", 1, 3)
ZSTD_FRAME = 0xFD2FB528
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
NASTY = "\x28\xb5 ^*M\x18 \u2028 \U0001f600 \x00"


def packed() -> PackedObject:
    return pack(
        PLACE,
        "30d",
        12,
        [
            clicks(5, [AUGUST_MS, AUGUST_MS + 10]),
            clicks(6, [AUGUST_MS + 5], session_id="s2"),
            clicks(7, [AUGUST_MS + 1, SEPTEMBER_MS], part="0", next_parts=(part_start(1, "1"),)),
            batch(9, [("console", AUGUST_MS, {"args": [NASTY]}), (3, AUGUST_MS, {"source": 1})], window_id="w2"),
        ],
    )


def frames(body: bytes) -> list[tuple[int, int, int]]:
    """(magic, start, end) of every frame, by the format alone."""
    found, at = [], 0
    while at < len(body):
        (magic,) = struct.unpack_from("<I", body, at)
        if magic in SKIPPABLE:
            (length,) = struct.unpack_from("<I", body, at + 4)
            end = at + 8 + length
        else:
            assert magic == ZSTD_FRAME
            rest = zstandard.ZstdDecompressor().decompressobj()
            rest.decompress(body[at:])
            end = len(body) - len(rest.unused_data)
        found.append((magic, at, end))
        at = end
    return found


def test_key_has_class_date_hour_and_the_first_offset_only() -> None:
    assert packed().manifest.object == (
        "replays/v1/retention=30d/date=2026-08-31/hour=23/replay.batches-1-3-5.jsonl.zst"
    )
    assert manifest_key(packed().manifest.object).endswith("/replay.batches-1-3-5.manifest.json")


def test_frames_are_an_empty_one_a_frame_a_block_and_the_trailer() -> None:
    body, manifest = packed().body, packed().manifest
    laid = frames(body)
    assert [magic == ZSTD_FRAME for magic, _, _ in laid] == [True] * (1 + len(manifest.blocks)) + [False]
    assert zstandard.ZstdDecompressor().decompress(body[laid[0][1] : laid[0][2]]) == b""
    assert [(start, end - start) for _, start, end in laid[1:-1]] == [
        (block.byte_start, block.byte_length) for block in manifest.blocks
    ]
    assert msgspec.json.decode(body[laid[-1][1] + 8 :], type=Manifest) == manifest


def test_a_block_holds_one_session_part_and_window_in_log_order() -> None:
    body, manifest = packed().body, packed().manifest
    assert [
        (b.session_id, b.part, b.window_id, b.event_count, b.source_offset, b.source_last_offset)
        for b in manifest.blocks
    ] == [
        ("s1", "0", "w1", 3, 5, 7),
        ("s2", "0", "w1", 1, 6, 6),
        ("s1", "1", "w1", 1, 7, 7),
        ("s1", "0", "w2", 2, 9, 9),
    ]
    first = manifest.blocks[0]
    frame = body[first.byte_start : first.byte_start + first.byte_length]
    assert hashlib.sha256(frame).hexdigest() == first.sha256
    assert [line.timestamp for line in read_block(frame, first.sha256)] == [AUGUST_MS, AUGUST_MS + 10, AUGUST_MS + 1]
    assert (first.first_ts, first.last_ts) == (AUGUST_MS, AUGUST_MS + 10)


def test_every_line_describes_itself() -> None:
    text = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed().body), read_across_frames=True).read()
    lines = [json.loads(line) for line in text.decode().split("\n") if line]
    assert len(lines) == 7
    assert all(
        list(line) == ["tenant", "session_id", "part", "window_id", "timestamp", "type", "data"] for line in lines
    )
    assert {"type": 3, "data": {"source": 1}}.items() <= lines[-1].items()
    assert lines[-2]["data"]["args"] == [NASTY]


NESTED = 'a "quoted"\n{"timestamp":1,"type":2}\nline'
"""Looks like the begin of a line, inside a string."""


EVENT = re.compile(rb'\{"type":(.*?),"timestamp":(-?[0-9]+),"data":(.*)\}', re.S)


def plain_lines(batches: list[CleanBatch]) -> dict[tuple[str, ...], list[bytes]]:
    """Block by block what the docstring's picture says, each line laid out by itself, event data as it came."""
    found: dict[tuple[str, ...], list[bytes]] = {}
    for each in batches:
        events = re.split(rb'\n(?=\{"type")', each.payload) if each.payload else []
        for index, event in enumerate(events):
            part = [each.part, *(start.part for start in each.next_parts if start.index <= index)][-1]
            key = (each.tenant, each.session_id, part, each.window_id)
            names = ("tenant", "session_id", "part", "window_id")
            head = msgspec.json.encode(dict(zip(names, key, strict=True)))[:-1]
            kind, at, data = EVENT.fullmatch(event).groups()
            line = head + b',"timestamp":' + at + b',"type":' + kind + b',"data":' + data.replace(b"\n", b"") + b"}\n"
            found.setdefault(key, []).append(line)
    return found


ODD = [
    clicks(5, [AUGUST_MS, AUGUST_MS + 10, AUGUST_MS]),
    clicks(6, [AUGUST_MS] * 5, part="0", next_parts=(part_start(2, "1"), part_start(2, "2"), part_start(4, "3"))),
    clicks(7, [AUGUST_MS] * 2, next_parts=(part_start(0, "1"), part_start(9, "2"))),
    batch(8),
    batch(9, [("console", AUGUST_MS, {"args": [NASTY, NESTED]}), (3, -AUGUST_MS, {"a": [1.5, None]}), ("", 0, None)]),
    batch(10, [("console", 1, {"timestamp": NESTED})], tenant='te"nant', session_id="\u2028s\n", window_id='{"timestamp":1'),
    msgspec.structs.replace(
        batch(11), payload=b'{"type":"a","timestamp":1,"data":{"x":\n{"timestamp":1}}}\n{"type":"b","timestamp":2,"data":0}',
        event_count=2,
    ),
]  # fmt: skip


@pytest.mark.parametrize("name", ["odd", *(captured.name for captured in recordings.manifest())])
def test_lines_are_those_of_the_plain_way(name: str) -> None:
    batches = ODD if name == "odd" else [outcome.clean for outcome in recordings.outcomes(name)]
    body, manifest = (found := pack(PLACE, "30d", 99, batches)).body, found.manifest
    wanted = plain_lines(batches)
    assert [(b.tenant, b.session_id, b.part, b.window_id) for b in manifest.blocks] == list(wanted)
    for block, lines in zip(manifest.blocks, wanted.values(), strict=True):
        frame = body[block.byte_start : block.byte_start + block.byte_length]
        text = zstandard.ZstdDecompressor().decompress(frame, 1 << 27)
        assert text == b"".join(lines)
        assert (block.event_count, block.byte_length) == (len(lines), len(frame))
        times = [json.loads(line)["timestamp"] for line in lines]
        assert (block.first_ts, block.last_ts) == (min(times), max(times))


def test_data_with_line_breaks_stays_on_one_line() -> None:
    payload = b'{"type":"click","timestamp":1,"data":{"x":\n1}}'
    broken = msgspec.structs.replace(batch(5), payload=payload, event_count=1)
    text = (
        zstandard.ZstdDecompressor().stream_reader(pack(PLACE, "30d", 5, [broken]).body, read_across_frames=True).read()
    )
    assert [json.loads(line)["data"] for line in text.splitlines()] == [{"x": 1}]


def test_the_zstd_command_reads_it_whole(tmp_path: Path) -> None:
    need(shutil.which("zstd"), "the command zstd")
    (tmp_path / "o.zst").write_bytes(packed().body)
    done = subprocess.run(["zstd", "-dc", str(tmp_path / "o.zst")], capture_output=True, check=True)
    assert Counter(json.loads(line)["session_id"] for line in done.stdout.splitlines()) == {"s1": 6, "s2": 1}


def test_the_object_is_its_own_manifest() -> None:
    assert read_manifest(packed().body) == packed().manifest


def test_an_erased_block_is_not_alive_and_the_others_are() -> None:
    body, manifest = bytearray(packed().body), packed().manifest
    gone = manifest.blocks[1]
    struct.pack_into("<II", body, gone.byte_start, 0x184D2A50, gone.byte_length - 8)
    assert [block.n for block in read_manifest(bytes(body)).blocks] == [0, 2, 3]
    text = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(bytes(body)), read_across_frames=True).read()
    assert b'"s2"' not in text


def test_an_object_cut_anywhere_is_refused() -> None:
    body = packed().body
    for length in range(len(body)):
        with pytest.raises(PoisonError):
            read_manifest(body[:length])


def test_a_block_whose_bytes_changed_is_refused() -> None:
    body, block = packed().body, packed().manifest.blocks[0]
    frame = bytearray(body[block.byte_start : block.byte_start + block.byte_length])
    frame[len(frame) // 2] ^= 1
    with pytest.raises(PoisonError, match="differ from its hash"):
        read_block(bytes(frame), block.sha256)


def test_the_same_batches_give_the_same_bytes() -> None:
    assert packed().body == packed().body
