"""Blocks merged by time: against a plain stable sort of all of it, whatever overlaps and however little may be held."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator

import msgspec
import pytest

from pipeline.model.events import SessionEvent
from pipeline.query import merge
from pipeline.query.merge import Due, merged
from pipeline.storage.times import TS_MIN_MS

TIMES = {
    "one after the other": lambda chance, block: block * 100 + chance.randrange(100),
    "all overlap": lambda chance, _: chance.randrange(100),
    "some come late": lambda chance, block: max(block * 100 - chance.choice([0, 0, 0, 0, 900]), 0),
    "all at once": lambda _chance, _block: 5,
    "before 1970": lambda chance, block: chance.randrange(-1_000, 0) + block,
}


def blocks_of(shape: str, *, seed: int, blocks: int = 20, events: int = 30) -> list[list[SessionEvent]]:
    """Blocks in log order; every event's data names it."""
    chance = random.Random(seed)
    return [
        [
            SessionEvent("click", TIMES[shape](chance, block), msgspec.Raw(json.dumps([block, n]).encode()))
            for n in range(events)
        ]
        for block in range(blocks)
    ]


def due(blocks: list[list[SessionEvent]], loaded: list[int] | None = None) -> Iterator[Due]:
    """As the index would name them: by a first time that is never below what its column holds."""

    def waiting(order: int, events: list[SessionEvent]) -> Due:
        first = max(min((event.timestamp for event in events), default=0), TS_MIN_MS)

        def load() -> tuple[list[SessionEvent], int]:
            if loaded is not None:
                loaded.append(order)
            return list(events), sum(len(bytes(event.data)) for event in events)

        return Due(first, order, load)

    return iter(sorted((waiting(*each) for each in enumerate(blocks)), key=lambda each: (each.first_ts, each.order)))


def told(events: list[SessionEvent]) -> list[tuple[int, str]]:
    return [(event.timestamp, bytes(event.data).decode()) for event in events]


@pytest.mark.parametrize("held", [1, 20_000, 1 << 30])
@pytest.mark.parametrize("shape", TIMES)
def test_all_events_come_by_time_and_those_of_one_time_in_log_order(shape: str, held: int) -> None:
    for seed in range(5):
        blocks = blocks_of(shape, seed=seed)
        expected = sorted((event for block in blocks for event in block), key=lambda event: event.timestamp)
        assert told(list(merged(due(blocks), held_bytes_max=held))) == told(expected)


def test_a_block_is_loaded_only_when_its_time_has_come() -> None:
    loaded: list[int] = []
    blocks = blocks_of("one after the other", seed=1)
    for event in merged(due(blocks, loaded)):
        block = json.loads(bytes(event.data))[0]
        assert set(loaded) <= set(range(block + 2))


def test_blocks_without_events_are_passed_over() -> None:
    blocks = blocks_of("one after the other", seed=1, blocks=3)
    assert told(list(merged(due([[], blocks[0], [], [], blocks[1], []])))) == told(
        sorted(blocks[0] + blocks[1], key=lambda event: event.timestamp)
    )
    assert list(merged(due([[], []]))) == []
    assert list(merged(iter(()))) == []


def test_what_waits_on_disk_comes_back_whole_and_leaves_no_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(merge, "SPILL_READ_BYTES", 16)  # lines are longer than what is read at once
    nasty = json.dumps({"text": "\u2028 \U0001f600 \\n " * 50}, ensure_ascii=False).encode()
    blocks = [[SessionEvent(3, at, msgspec.Raw(nasty)) for at in range(10)] for _ in range(4)]
    found = merged(due(blocks), held_bytes_max=1)
    first = next(found)
    assert list(tmp_path.iterdir()) == []
    assert told([first, *found]) == [(at, nasty.decode()) for at in range(10) for _ in range(4)]
