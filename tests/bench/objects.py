"""The object sink against plain zstd of the same bytes in the same frames, and zstd's levels: size against processor time.

The blocks are what a flush every ten seconds takes of the captured recordings, all clients, many sessions at once; the two
recordings of one huge page are left out, which compress best. The sink's side is what it does with a flush, but for the
index: clean records decoded from Avro, packed, put into a directory with their manifest. Rates go by processor time.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import zstandard

from pipeline.model.batches import CleanBatch
from pipeline.storage import blocks
from pipeline.storage.blocks import BLOCK_BYTES_MAX, PackedObject, Place, encode_manifest, manifest_key, pack
from pipeline.storage.directory import DirectoryStore
from tests import recordings
from tests.bench.rounds import interleaved, tell
from tests.recordings import CODECS

FLUSH_MS = 10_000
SESSIONS = 40
LEVELS = (1, 3, 6, 9)
PLACE = Place("replay.batches", 1, 0)
GROUPS = {
    "portable": lambda name: name.startswith("portable") and "hostile" not in name,
    "portable, hostile (the throttle leaves some four events a batch)": lambda name: "hostile" in name,
    "rrweb and posthog": lambda name: not name.startswith("portable"),
}
MIB = 1 << 20


def main() -> None:
    for name, belongs in GROUPS.items():
        flushes = _flushes(belongs)
        payload = sum(len(batch.payload) for flush in flushes for batch in flush)
        events = sum(batch.event_count for flush in flushes for batch in flush)
        texts = [_texts(pack(PLACE, "30d", flush[-1].source_offset, flush)) for flush in flushes]
        size = sum(len(text) for found in texts for text in found)
        print(
            f"{name}: {events:,} events, {payload / MIB:.1f} MiB of payload, {size / MIB:.1f} MiB of lines", flush=True
        )
        _levels(texts, payload, size)
        encoded = [[CODECS.clean.encode(batch) for batch in flush] for flush in flushes]
        sides = {
            f"zstd {blocks.LEVEL}": lambda texts=texts, size=size: size / MIB / _zstd(texts, blocks.LEVEL)[0],
            "object sink": lambda encoded=encoded, size=size: size / MIB / _sink(encoded),
        }
        tell(interleaved(sides), baseline=f"zstd {blocks.LEVEL}", unit="MiB/s")


def _levels(texts: list[list[bytes]], payload: int, size: int) -> None:
    """Prints each level's rate as a ratio to the one in use, and its bytes as a share of the payload."""
    tell(
        interleaved({f"level {n}": lambda n=n: size / MIB / _zstd(texts, n)[0] for n in LEVELS}),
        baseline=f"level {blocks.LEVEL}",
        unit="MiB/s",
    )
    print("  ".join(f"level {n}: {_zstd(texts, n)[1] / payload:.3f} of the payload" for n in LEVELS), flush=True)


def _flushes(belongs: Callable[[str], bool]) -> list[list[CleanBatch]]:
    """Clean batches by flush, as if SESSIONS sessions of each recording began at once, on one partition."""
    flushes: dict[int, list[CleanBatch]] = defaultdict(list)
    for captured in recordings.manifest():
        if belongs(captured.name) and "bulk" not in captured.name:
            clean = [outcome.clean for outcome in recordings.outcomes(captured.name) if outcome.clean.event_count]
            for batch in clean:
                flushes[(batch.last_event_at - clean[0].first_event_at) // FLUSH_MS] += [
                    msgspec.structs.replace(batch, session_id=f"{batch.session_id}-{n}") for n in range(SESSIONS)
                ]
    offset = 0
    found = []
    for number in sorted(flushes):
        found.append(
            [
                msgspec.structs.replace(b, source_offset=offset + n, source_last_offset=offset + n)
                for n, b in enumerate(flushes[number])
            ]
        )
        offset += len(found[-1])
    return found


def _texts(packed: PackedObject) -> list[bytes]:
    unpack = zstandard.ZstdDecompressor()
    return [
        unpack.decompress(packed.body[each.byte_start : each.byte_start + each.byte_length], BLOCK_BYTES_MAX)
        for each in packed.manifest.blocks
    ]


def _zstd(texts: list[list[bytes]], level: int) -> tuple[float, int]:
    """(Seconds, bytes) of nothing but compression."""
    compress = zstandard.ZstdCompressor(level=level, write_content_size=True).compress
    return _timed(lambda: sum(len(compress(text)) for found in texts for text in found))


def _sink(flushes: list[list[bytes]]) -> float:
    decode = CODECS.clean.decode
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as folder:
        store = DirectoryStore(Path(folder))

        def work() -> int:
            for flush in flushes:
                batches = [decode(record) for record in flush]
                packed = pack(PLACE, "30d", batches[-1].source_offset, batches)
                assert store.put_if_absent(packed.manifest.object, packed.body)
                assert store.put_if_absent(manifest_key(packed.manifest.object), encode_manifest(packed.manifest))
            return len(flushes)

        return _timed(work)[0]


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    began = time.process_time()
    done = work()
    return time.process_time() - began, done
