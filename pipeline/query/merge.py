"""Events of many blocks in one order of time, in memory that does not grow with their number.

A block's first time is known before it is read, so blocks are opened one by one as their time comes: of a session whose
blocks follow each other one or two are open at once. Where more overlap than HELD_BYTES_MAX holds (late batches, many
windows), the events of a block wait sorted in one unlinked temporary file, and a few KiB of each are read at a time.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from pipeline.model.events import SessionEvent
from pipeline.storage.times import TS_MIN_MS

HELD_BYTES_MAX = 64 << 20
EVENT_BYTES = 256
"""What an event takes beside its text: its object, its time, its type."""
SPILL_READ_BYTES = 16 << 10


@dataclass(frozen=True)
class Due:
    """A block that waits for its turn: `first_ts` is no later than any of its events (ms, as the index holds it), `order`
    its place in log order; `load` gives its events in log order and how many bytes of text they keep alive."""

    first_ts: int
    order: int
    load: Callable[[], tuple[list[SessionEvent], int]]


def merged(blocks: Iterator[Due], *, held_bytes_max: int = HELD_BYTES_MAX) -> Iterator[SessionEvent]:
    """All events by time; those of one time in log order. `blocks` come by first_ts, then order."""
    with _Spill() as spill:
        heap: list[tuple[int, int, SessionEvent, Iterator[SessionEvent], int]] = []
        held = 0
        upcoming = next(blocks, None)
        while heap or upcoming is not None:
            while upcoming is not None and (not heap or upcoming.first_ts <= max(heap[0][0], TS_MIN_MS)):
                events, size = upcoming.load()
                events.sort(key=lambda event: event.timestamp)
                size += EVENT_BYTES * len(events)
                run = iter(events)
                if heap and held + size > held_bytes_max:
                    run, size = spill.run(events), 0
                del events
                first = next(run, None)
                if first is not None:
                    held += size
                    heapq.heappush(heap, (first.timestamp, upcoming.order, first, run, size))
                upcoming = next(blocks, None)
            if not heap:
                break
            _, order, event, run, size = heap[0]
            yield event
            following = next(run, None)
            if following is not None:
                heapq.heapreplace(heap, (following.timestamp, order, following, run, size))
            else:
                heapq.heappop(heap)
                held -= size


class _Spill:
    """One temporary file that holds runs of events, each read on its own; made when it is first needed."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._end = 0

    def __enter__(self) -> _Spill:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def run(self, events: list[SessionEvent]) -> Iterator[SessionEvent]:
        """Writes the events down and gives them back one by one."""
        if self._file is None:
            self._file, name = tempfile.mkstemp(prefix="replay-recording-")
            os.unlink(name)
        start = self._end
        for at in range(0, len(events), 1_000):
            text = msgspec.json.Encoder().encode_lines(events[at : at + 1_000])
            while text:
                written = os.pwrite(self._file, text, self._end)
                self._end += written
                text = text[written:]
        return self._read(self._file, start, self._end)

    @staticmethod
    def _read(file: int, at: int, end: int) -> Iterator[SessionEvent]:
        rest, decoder = b"", msgspec.json.Decoder(SessionEvent)
        while at < end:
            # a line longer than what is read at once: twice as much the next time, so that it is not put together for ever
            piece = os.pread(file, min(max(SPILL_READ_BYTES, len(rest)), end - at), at)
            at += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield decoder.decode(line)
