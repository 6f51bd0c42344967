"""A recording read back from objects in a directory: what it is made of, and how what cannot be read is told."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RetryableError
from pipeline.query.recording import BlockPlace, lines, recording
from pipeline.storage.blobs import MissingBlobError
from pipeline.storage.blocks import Place, pack
from pipeline.storage.directory import DirectoryStore
from tests.unit.sinks.clean import AUGUST_MS, clicks

PLACE = Place("replay.batches", 1, 0)
OBJECTS = 4
PART = {
    "revision": 3, "session_id": "s1", "user_id": 'u1 "events":[', "started_at": "2026-08-31T23:59:59.000Z",
    "ended_at": "2026-08-31T23:59:59.500Z", "user_agent": "ua", "viewport_width": 3, "viewport_height": 4,
    "first_url": "http://a.test/",
}  # fmt: skip


class CountingStore(DirectoryStore):
    """Notes which ranges were read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: Counter[tuple[str, int, int]] = Counter()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.asked[key, start, length] += 1
        return super().get_range(key, start, length)

    def get(self, key: str) -> tuple[bytes, str]:
        raise AssertionError("a recording is read by ranges")


@pytest.fixture
def stored(tmp_path: Path) -> tuple[CountingStore, list[BlockPlace]]:
    """Four objects, each with a block of s1 (an event, x = 0, y = the object's number) and one of another session."""
    store, places = CountingStore(tmp_path), []
    for number in range(OBJECTS):
        batches = [clicks(2 * number, [AUGUST_MS + number]), clicks(2 * number + 1, session_id="other")]
        packed = pack(PLACE, "30d", 2 * number + 1, batches)
        assert store.put_if_absent(packed.manifest.object, packed.body)
        block = packed.manifest.blocks[0]
        places.append(
            BlockPlace(
                packed.manifest.object, 0, block.byte_start, block.byte_length, block.sha256, block.first_ts, number
            )
        )
    return store, places


def read(make: Callable[..., Any], *arguments: Any) -> bytes:
    with ThreadPoolExecutor(4) as pool:
        return b"".join(make(arguments[0], pool, *arguments[1:]))


def event(number: int) -> dict[str, Any]:
    return {"type": "click", "timestamp": AUGUST_MS + number, "data": {"x": 0, "y": 2 * number}}


def test_a_recording_is_the_sessions_events_and_what_its_parts_say(stored) -> None:
    assert json.loads(read(recording, *stored, [PART])) == {
        "sessionId": "s1",
        "userId": 'u1 "events":[',
        "startTime": AUGUST_MS,
        "endTime": AUGUST_MS + 500,
        "events": [event(number) for number in range(OBJECTS)],
        "metadata": {"userAgent": "ua", "viewport": {"width": 3, "height": 4}, "url": "http://a.test/"},
    }


def test_ndjson_is_an_event_a_line(stored) -> None:
    text = read(lines, *stored)
    assert text.endswith(b"}\n")
    assert [json.loads(line) for line in text.splitlines()] == [event(number) for number in range(OBJECTS)]


def test_a_session_without_blocks_has_no_events(stored) -> None:
    store, _ = stored
    assert json.loads(read(recording, store, [], [PART]))["events"] == []
    assert read(lines, store, []) == b""


def test_each_block_is_asked_for_once_and_by_its_range(stored) -> None:
    store, places = stored
    read(recording, store, places, [PART])
    assert store.asked == Counter((place.object, place.byte_start, place.byte_length) for place in places)


def in_place(change: Callable[[bytearray, BlockPlace], None]) -> Callable[[Path, BlockPlace], BlockPlace]:
    """Changes the object's bytes where the block is."""

    def damage(path: Path, place: BlockPlace) -> BlockPlace:
        body = bytearray(path.read_bytes())
        change(body, place)
        path.write_bytes(body)
        return place

    return damage


def flip(body: bytearray, place: BlockPlace) -> None:
    body[place.byte_start + place.byte_length // 2] ^= 1


def cut(body: bytearray, place: BlockPlace) -> None:
    del body[place.byte_start + place.byte_length - 1 :]


def erase(body: bytearray, place: BlockPlace) -> None:
    struct.pack_into("<II", body, place.byte_start, 0x184D2A50, place.byte_length - 8)


def remove(path: Path, place: BlockPlace) -> BlockPlace:
    path.unlink()
    return place


def no_block(path: Path, place: BlockPlace) -> BlockPlace:
    """The hash is right, but it is the hash of something else."""
    import hashlib

    start, length = place.byte_start + 4, place.byte_length - 4
    sha256 = hashlib.sha256(path.read_bytes()[start : start + length]).hexdigest()
    return BlockPlace(place.object, place.n, start, length, sha256, place.first_ts, place.order)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (remove, "missing"),
        (in_place(cut), "cut"),
        (in_place(erase), "erased"),
        (in_place(flip), "corrupt"),
        (no_block, "unreadable"),
    ],
)
def test_a_block_that_cannot_be_read_is_told_at_the_end_and_the_rest_is_served(
    stored, tmp_path: Path, damage: Callable[[Path, BlockPlace], BlockPlace], why: str
) -> None:
    store, places = stored
    places[1] = damage(tmp_path / places[1].object, places[1])
    rest = [event(number) for number in range(OBJECTS) if number != 1]
    problems = [{"block": f"{places[1].object}#0", "why": why}]
    whole = json.loads(read(recording, store, places, [PART]))
    assert (whole["events"], whole["problems"]) == (rest, problems)
    assert [json.loads(line) for line in read(lines, store, places).splitlines()] == [*rest, {"problems": problems}]


def test_where_nothing_can_be_read_the_problems_are_all_there_is(stored) -> None:
    _, places = stored
    nowhere = DirectoryStore(Path("/nonexistent"))
    whole = json.loads(read(recording, nowhere, places, [PART]))
    assert (whole["events"], len(whole["problems"])) == ([], OBJECTS)
    assert [list(json.loads(line)) for line in read(lines, nowhere, places).splitlines()] == [["problems"]]


def test_a_store_that_is_away_is_not_a_problem_of_a_block(stored) -> None:
    _, places = stored

    class Away(DirectoryStore):
        def get_range(self, key: str, start: int, length: int) -> bytes:
            raise RetryableError("away")

    assert not issubclass(MissingBlobError, RetryableError)
    with pytest.raises(RetryableError):
        read(recording, Away(Path("/nonexistent")), places, [PART])
