"""What is wrong with an object, its manifest and its rows of the index. Pure: bytes and rows in, findings out.

hole        a row of the index without its bytes: no such object, or it ends before the block does
corrupt     a block's bytes are not what its hash says
erased      a row of the index for a block that was erased
orphan      a live block, or a whole object, that the index does not know
doubled     a block that the index has more than once
differs     a row of the index says something else than the object's own trailer
unreadable  an object without a trailer that can be read: cut short, changed, or not ours
manifest    it is missing, cannot be read, says something else than the trailer, or its object is gone
overlap     two objects of a retention class claim the same source offsets: their events may be stored twice
unknown     a key that is neither an object's nor a manifest's
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from typing import Literal

import msgspec

from pipeline.errors import PoisonError
from pipeline.model.blocks import Block, Manifest
from pipeline.model.retention import PINNED
from pipeline.storage.blocks import decode_manifest, fault_of, is_erased, trailer
from pipeline.storage.index_rows import IndexRow, rows_of

Kind = Literal[
    "hole", "corrupt", "erased", "orphan", "doubled", "differs", "unreadable", "manifest", "overlap", "unknown"
]
_OF_FAULT: dict[str, Kind] = {"cut": "hole", "corrupt": "corrupt", "erased": "erased"}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong: with block `n` of the object, or with all of it."""

    kind: Kind
    object: str
    n: int | None = None
    why: str = ""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One object as it was read: its bytes, its manifest's (None: there is none), and its rows of the index by n."""

    key: str
    body: bytes | None
    manifest: bytes | None
    rows: list[IndexRow]


def trailer_of(seen: Seen) -> Manifest | None:
    """What the object says of itself, or None where it cannot be read."""
    try:
        return decode_manifest(trailer(seen.body)) if seen.body is not None else None
    except PoisonError:
        return None


def is_over(seen: Seen, own: Manifest | None, now_s: int) -> bool:
    """Whether its retention has ended: rows and bytes then go on their own, each in its time."""
    ends = [own.expires_at] if own else [row.expires_at for row in seen.rows]
    return bool(ends) and max(ends) <= now_s


def findings(seen: Seen, own: Manifest | None) -> list[Finding]:
    """All that is wrong with one object. `own` is `trailer_of(seen)`."""
    if seen.body is None:
        found = [Finding("hole", seen.key, row.n, "there is no such object") for row in seen.rows]
        if seen.manifest is not None:
            found.append(Finding("manifest", seen.key, why="its object is gone"))
        return found
    found = _of_rows(seen, seen.body)
    if own is None:
        return [
            *found,
            Finding("unreadable", seen.key, why="it has no trailer: it was cut short, changed or is not ours"),
        ]
    if own.object != seen.key:
        return [*found, Finding("unreadable", seen.key, why=f"it says that it is {own.object}")]
    live = _live(own, seen.body)
    return [*found, *_of_live(seen, seen.body, live), *_of_manifest(seen, seen.body, live)]


def _of_rows(seen: Seen, body: bytes) -> list[Finding]:
    """Is there under each row what it says?"""
    found = [
        Finding("doubled", seen.key, n, f"{count} rows")
        for n, count in Counter(row.n for row in seen.rows).items()
        if count > 1
    ]
    for row in {row.n: row for row in seen.rows}.values():
        fault = fault_of(_cut(body, row), row.byte_length, row.sha256)
        if fault is not None:
            found.append(
                Finding(_OF_FAULT[fault], seen.key, row.n, f"bytes {row.byte_start}+{row.byte_length}: {fault}")
            )
    return found


def _of_live(seen: Seen, body: bytes, live: Manifest) -> list[Finding]:
    """Is each live block in the index, and as the object itself says?"""
    rows = {row.n: row for row in seen.rows}
    found = []
    for block, expected in zip(live.blocks, rows_of(live), strict=True):
        row = rows.get(block.n)
        if row is None:
            if fault_of(_cut(body, block), block.byte_length, block.sha256):
                found.append(Finding("corrupt", seen.key, block.n, f"bytes {block.byte_start}+{block.byte_length}"))
            if seen.rows:
                found.append(Finding("orphan", seen.key, block.n, "not in the index"))
            continue
        # how long a row is kept may change; where its bytes are and whose they are does not
        other = [
            name
            for name, was, now in zip(IndexRow._fields, expected, row, strict=True)
            if was != now and name != "expires_at"
        ]
        if other:
            found.append(Finding("differs", seen.key, block.n, f"in {', '.join(other)}"))
    if live.blocks and not seen.rows:
        found.append(Finding("orphan", seen.key, why=f"none of its {len(live.blocks)} blocks is in the index"))
    return found


def _of_manifest(seen: Seen, body: bytes, live: Manifest) -> list[Finding]:
    if seen.manifest is None:
        return [Finding("manifest", seen.key, why="missing")]
    try:
        manifest = decode_manifest(seen.manifest)
    except PoisonError:
        return [Finding("manifest", seen.key, why="cannot be read")]
    same = _live(manifest, body) == live
    return [] if same else [Finding("manifest", seen.key, why="differs from the object's trailer")]


def _live(manifest: Manifest, body: bytes) -> Manifest:
    return msgspec.structs.replace(
        manifest, blocks=tuple(block for block in manifest.blocks if not is_erased(_cut(body, block)))
    )


def _cut(body: bytes, place: IndexRow | Block) -> bytes:
    return body[place.byte_start : place.byte_start + place.byte_length]


class Ranges:
    """Source offsets that objects claim, by class, topic, epoch and partition: tells where two overlap.

    Objects come class by class. Keeps 16 bytes for each of one class: a million objects are 16 MB.
    """

    def __init__(self) -> None:
        self._retention = ""
        self._claimed: dict[tuple[str, int, int], tuple[array[int], array[int]]] = {}

    def claim(self, manifest: Manifest) -> Finding | None:
        if manifest.retention == PINNED:  # copies of single blocks: many are of the same offsets
            return None
        if manifest.retention != self._retention:
            self._retention, self._claimed = manifest.retention, {}
        place = (manifest.topic, manifest.epoch, manifest.source_partition)
        firsts, lasts = self._claimed.setdefault(place, (array("Q"), array("Q")))
        low = bisect_right(firsts, manifest.first)  # nearly always the end: objects come nearly by offset
        if low and lasts[low - 1] >= manifest.first:
            low -= 1
        high = low
        while high < len(firsts) and firsts[high] <= manifest.last:
            high += 1
        first, last, found = manifest.first, manifest.last, None
        if high > low:
            claims = f"source offsets {first} to {last}, another object {firsts[low]} to {lasts[low]}"
            found = Finding("overlap", manifest.object, why=claims)
            first, last = min(first, firsts[low]), max(last, lasts[high - 1])
        firsts[low:high], lasts[low:high] = array("Q", [first]), array("Q", [last])
        return found
