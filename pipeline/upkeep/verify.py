"""Are index and bucket the same, and every block what its hash says? Reads every byte of the bucket once.

Several objects are read at once, within `Limits`. Sinks may write meanwhile: an object with findings is looked at again
at the end, when a flush that was under way is over, and only what is wrong then is told.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from pipeline.storage.ahead import Limits, read_ahead
from pipeline.storage.blobs import BlobStore, MissingBlobError
from pipeline.storage.blocks import manifest_key
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.index import indexed_of
from pipeline.upkeep.findings import Finding, Ranges, Seen, findings, is_over, trailer_of
from pipeline.upkeep.walk import Standing, Stranger, walk

LIMITS = Limits(reads=4, read_bytes=64 << 20)
SECOND_LOOKS_MAX = 10_000
"""More objects with findings than that are no flush under way: they are told at once."""


class Tally(msgspec.Struct):
    """What was looked at, and what was found, by kind."""

    objects: int = 0
    blocks: int = 0
    """Rows of the index."""
    bytes: int = 0
    expired_objects: int = 0
    """Past their retention; nothing else is asked of them."""
    findings: dict[str, int] = {}


class Verification:
    """One walk. `tally` grows while `run` is read. `settle_s` is how long a flush may take from its first bytes to its last
    index row."""

    def __init__(
        self,
        store: BlobStore,
        warehouse: ClickHouse,
        *,
        now_s: int,
        settle_s: float,
        progress: Callable[[Tally, str], None] = lambda _tally, _key: None,
    ) -> None:
        self.tally = Tally()
        self._store, self._warehouse = store, warehouse
        self._now_s, self._settle_s, self._progress = now_s, settle_s, progress
        self._ranges = Ranges()
        self._again: list[str] = []

    def run(self) -> Iterator[Finding]:
        """What is wrong. Raises RetryableError where a store is away, FatalError where it refuses."""
        counts: Counter[str] = Counter()
        for finding in self._all():
            counts[finding.kind] += 1
            self.tally.findings = dict(counts)
            yield finding

    def _all(self) -> Iterator[Finding]:
        with ThreadPoolExecutor(LIMITS.reads, thread_name_prefix="verify") as pool:
            jobs = ((each, _bytes_of(each)) for each in walk(self._store, self._warehouse))
            for standing, seen in read_ahead(pool, self._read, jobs, LIMITS):
                if seen is None:
                    yield Finding("unknown", standing.key)
                else:
                    yield from self._first_look(seen)
                self._progress(self.tally, standing.key)
        if self._again:
            time.sleep(self._settle_s)
        for key in self._again:
            seen = self._read(Standing(key, 0, 0, indexed_of(self._warehouse, key)))
            assert seen is not None
            yield from findings(seen, trailer_of(seen))

    def _read(self, standing: Standing | Stranger) -> Seen | None:
        if isinstance(standing, Stranger):
            return None
        body = None if standing.size is None else self._get(standing.key)
        manifest = None if standing.manifest_size is None else self._get(manifest_key(standing.key))
        return Seen(key=standing.key, body=body, manifest=manifest, rows=standing.rows)

    def _get(self, key: str) -> bytes | None:
        try:
            return self._store.get(key)[0]
        except (MissingBlobError, ValueError):  # a row of the index may name what can be no key of this store
            return None

    def _first_look(self, seen: Seen) -> Iterator[Finding]:
        trailer = trailer_of(seen)
        self.tally.blocks += len(seen.rows)
        if seen.body is not None:
            self.tally.objects += 1
            self.tally.bytes += len(seen.body)
        if is_over(seen, trailer, self._now_s):
            self.tally.expired_objects += seen.body is not None
            return
        if trailer is not None and seen.body is not None and trailer.object == seen.key:
            overlap = self._ranges.claim(trailer)
            if overlap is not None:
                yield overlap
        found = findings(seen, trailer)
        if found and len(self._again) < SECOND_LOOKS_MAX:
            self._again.append(seen.key)
        else:
            yield from found


def _bytes_of(standing: Standing | Stranger) -> int:
    return 0 if isinstance(standing, Stranger) else (standing.size or 0) + (standing.manifest_size or 0)
