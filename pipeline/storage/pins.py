"""Pinned sessions: kept whatever their retention class says, until they are unpinned.

The pin is a row of `pins`, and comes first: everything after it can be done again, and `replay retain` does (`complete`),
for a session that went on after it was pinned as for a pin that a crash left half done. Then

    index    a row for the copy of each of the session's blocks, guarded against erasures as the sink's own rows are. It comes
             before the bytes, so that an eraser finds every copy there may ever be (PROTOCOL)
    bytes    each block, copied as it is into an object of its own under retention=pinned; its key is derived from the source
             object's, so that whoever repeats it writes the same
    rows     `expires_at` of events, sessions and users is set to PINNED_UNTIL_S, a moment that no class gives

The source's index rows stay: as long as it is there a reader takes the source (`ONE_OF_EACH`), then the copy. Unpinning gives
the rows the time back at which the youngest of them would have gone, and removes the copies, bytes first, then their index
rows, and last the row of `pins`.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import pyarrow as pa
import structlog

from pipeline.errors import NotFoundError
from pipeline.model.blocks import Block, Manifest
from pipeline.model.retention import EXPIRES_MAX_S, PINNED
from pipeline.storage.blobs import BlobStore, MissingBlobError
from pipeline.storage.blocks import (
    EMPTY_FRAME,
    OBJECT_SUFFIX,
    PREFIX,
    assemble,
    encode_manifest,
    manifest_key,
)
from pipeline.storage.clickhouse import ClickHouse

PINNED_UNTIL_S = EXPIRES_MAX_S - 1
"""Not the end of a day, as every class gives, nor the end of time, at which long classes are cut: only pins give it."""

PINNED_PREFIX = f"{PREFIX}{PINNED}/"
ONE_OF_EACH = (
    f"expires_at <= now(), startsWith(object, '{PINNED_PREFIX}'), object, n "
    "LIMIT 1 BY epoch, source_partition, source_offset, part, window_id"
)
"""The end of an ORDER BY over `blocks`: of a block and its pinned copy one, the source as long as it has not expired."""

_SESSION = "tenant = {tenant:String} AND session_id = {session:String}"
_ROWS = ("events", "sessions", "session_users")
_COPY = f"startsWith(object, '{PINNED_PREFIX}')"
_COPY_KEY = (
    f"concat('{PINNED_PREFIX}', substring(object, position(object, '/date=') + 1, length(object) - position(object, "
    f"'/date=') - {len(OBJECT_SUFFIX)}), '-b', toString(n), '{OBJECT_SUFFIX}')"
)
"""`copy_key` in SQL."""
_SAME = (
    "tenant, session_id, part, window_id, byte_length, first_ts, last_ts, event_count, sha256, epoch, source_partition, "
    "source_offset, source_last_offset"
)
_INDEX_COPIES = f"""
    INSERT INTO {{db}}.blocks ({_SAME}, object, n, byte_start, expires_at) SETTINGS insert_deduplicate = 0
    SELECT {_SAME}, {_COPY_KEY}, 0, {len(EMPTY_FRAME)}, toDateTime({PINNED_UNTIL_S}, 'UTC')
    FROM {{db}}.blocks WHERE {_SESSION} AND NOT {_COPY}
    AND {_COPY_KEY} NOT IN (SELECT object FROM {{db}}.blocks WHERE {_SESSION})
    AND (object, n) NOT IN (
        SELECT b.object, b.n FROM {{db}}.blocks AS b
        INNER JOIN (SELECT epoch, source_partition, max(source_offset) AS up_to FROM {{db}}.erasures
                    WHERE {_SESSION} GROUP BY epoch, source_partition) AS e
            ON e.epoch = b.epoch AND e.source_partition = b.source_partition
        WHERE b.tenant = {{tenant:String}} AND b.session_id = {{session:String}} AND b.source_offset <= e.up_to)
"""
"""Without deduplication: a session that is pinned for the second time has the same rows as the first time."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Pinned:
    """What came of it: the session's blocks that have a copy, and those that could not be copied."""

    pinned: bool
    blocks: int
    missing_blocks: int


class Pins:
    """Pins sessions in the warehouse and the blob store. For one thread at a time."""

    def __init__(self, warehouse: ClickHouse, store: BlobStore) -> None:
        self._warehouse = warehouse
        self._store = store

    def change(self, tenant: str, session: str, *, pinned: bool) -> Pinned:
        """Pins a session or lets it go; idempotent. Raises NotFoundError where there is no such session (any more: what has expired
        goes with the very mutation that would keep it), RetryableError where a store is away: what was begun then is done by the next call, or by `complete`."""
        who = {"tenant": tenant, "session": session}
        if not self._is_there(who):
            raise NotFoundError("there is no session by this id")
        self._note(who, pinned)
        return self._pin(who) if pinned else self._unpin(who)

    def complete(self) -> int:
        """Does what is left to do of every pin and unpin; how many pinned sessions there are."""
        found = self._warehouse.rows(
            "SELECT tenant, session_id, pinned FROM {db}.pins FINAL ORDER BY tenant, session_id"
        )
        for tenant, session, pinned in found:
            who = {"tenant": tenant, "session": session}
            if pinned and not self._is_there(who):
                continue  # erased since the pins were looked up
            if pinned:
                self._note(who, True)
            done = self._pin(who) if pinned else self._unpin(who)
            if done.missing_blocks:
                log.error("pinned_blocks_missing", blocks=done.missing_blocks)
        return sum(bool(pinned) for _, _, pinned in found)

    def _is_there(self, who: dict[str, str]) -> bool:
        """Whether the session has rows that have neither expired nor only say that it is erased."""
        count: int = self._warehouse.value(
            f"SELECT count() FROM {{db}}.sessions WHERE {_SESSION} AND expires_at > now() AND close_reason != 'erased'",
            **who,
        )
        return count > 0

    def _note(self, who: dict[str, str], pinned: bool) -> None:
        """The row of `pins`, where it says something new: that it is (un)pinned, or that the session has younger rows."""
        newest = max(
            self._warehouse.value(
                f"SELECT toUnixTimestamp(max(expires_at)) FROM {{db}}.{table} "
                f"WHERE {_SESSION} AND toUnixTimestamp(expires_at) < {PINNED_UNTIL_S}",
                **who,
            )
            for table in _ROWS
        )
        before = self._warehouse.rows(
            f"SELECT pinned, toUnixTimestamp(expires_at), revision FROM {{db}}.pins FINAL WHERE {_SESSION}", **who
        )
        was, end, revision = before[0] if before else (False, 0, 0)
        if bool(was) == pinned and (newest <= end or not pinned):
            return  # nothing new; a session without a row is not pinned
        row = {
            "tenant": [who["tenant"]],
            "session_id": [who["session"]],
            "pinned": [pinned],
            "expires_at": pa.array([max(newest, end)], pa.uint32()),
            # Never one that was there before: a row that says what an earlier, deleted one said would pass for a repeat.
            "revision": pa.array([max(revision + 1, time.time_ns() // 1_000_000)], pa.uint64()),
        }
        self._warehouse.insert("pins", pa.table(row))

    def _pin(self, who: dict[str, str]) -> Pinned:
        self._warehouse.command(_INDEX_COPIES, **who)
        sources = self._warehouse.rows(
            "SELECT object, n, byte_start, byte_length, toString(sha256), part, window_id, toUnixTimestamp64Milli(first_ts), "
            "toUnixTimestamp64Milli(last_ts), event_count, epoch, source_partition, source_offset, source_last_offset "
            f"FROM {{db}}.blocks WHERE {_SESSION} AND NOT {_COPY} ORDER BY object, n",
            **who,
        )
        copies = self._copies(who)
        wanted = [_Source(*row) for row in sources]
        missing = sum(not self._copied(who, each) for each in wanted if copy_key(each.object, each.n) in copies)
        self._take_back_erased(who, wanted)
        for table in _ROWS:
            self._set_end(who, table, f"toUnixTimestamp(expires_at) < {PINNED_UNTIL_S}", PINNED_UNTIL_S)
        return Pinned(True, len(copies) - missing, missing)

    def _unpin(self, who: dict[str, str]) -> Pinned:
        noted = self._warehouse.rows(
            f"SELECT toUnixTimestamp(expires_at), revision FROM {{db}}.pins FINAL WHERE {_SESSION}", **who
        )
        if not noted:
            return Pinned(False, 0, 0)
        end, revision = noted[0]
        for table in _ROWS if end else ():  # without one no row was ever given another
            self._set_end(who, table, f"toUnixTimestamp(expires_at) = {PINNED_UNTIL_S}", end)
        copies = self._copies(who)
        for key in sorted(copies):
            self._store.delete(key)
            self._store.delete(manifest_key(key))
        if copies:
            self._warehouse.command(
                f"ALTER TABLE {{db}}.blocks DELETE WHERE {_SESSION} AND {_COPY} SETTINGS mutations_sync = 1", **who
            )
        self._warehouse.command(  # a pin that came in between has a later one
            f"ALTER TABLE {{db}}.pins DELETE WHERE {_SESSION} AND revision <= {revision} SETTINGS mutations_sync = 1",
            **who,
        )
        return Pinned(False, 0, 0)

    def _copies(self, who: dict[str, str]) -> set[str]:
        rows = self._warehouse.rows(f"SELECT object FROM {{db}}.blocks WHERE {_SESSION} AND {_COPY}", **who)
        return {key for (key,) in rows}

    def _copied(self, who: dict[str, str], source: _Source) -> bool:
        """The copy's object is there, with its manifest; False where the source is not what its index says."""
        key = copy_key(source.object, source.n)
        manifest = _manifest(key, who, source)
        try:
            self._store.get_range(key, 0, 1)
        except MissingBlobError:
            try:
                frame = self._store.get_range(source.object, source.byte_start, source.byte_length)
            except MissingBlobError:
                frame = b""
            if hashlib.sha256(frame).hexdigest() != source.sha256:
                log.error("block_not_copied", object=source.object, n=source.n)
                return False
            self._store.put_if_absent(key, assemble(manifest, [frame]))
        self._store.put_if_absent(manifest_key(key), encode_manifest(manifest))
        return True

    def _take_back_erased(self, who: dict[str, str], sources: list[_Source]) -> None:
        """An eraser that came by before the bytes were there found nothing to erase; one that notes its erasure after this
        look finds them."""
        erased = self._warehouse.rows(
            f"SELECT epoch, source_partition, max(source_offset) FROM {{db}}.erasures WHERE {_SESSION} "
            "GROUP BY epoch, source_partition",
            **who,
        )
        up_to = {(epoch, partition): offset for epoch, partition, offset in erased}
        for each in sources:
            if each.source_offset <= up_to.get((each.epoch, each.source_partition), -1):
                key = copy_key(each.object, each.n)
                self._store.delete(key)
                self._store.delete(manifest_key(key))

    def _set_end(self, who: dict[str, str], table: str, which: str, end_s: int) -> None:
        """A mutation, only where it has something to change."""
        if self._warehouse.value(f"SELECT count() FROM {{db}}.{table} WHERE {_SESSION} AND {which}", **who):
            self._warehouse.command(
                f"ALTER TABLE {{db}}.{table} UPDATE expires_at = toDateTime({end_s}, 'UTC') "
                f"WHERE {_SESSION} AND {which} SETTINGS mutations_sync = 1",
                **who,
            )


@dataclass(frozen=True)
class _Source:
    """A block as the index has it."""

    object: str
    n: int
    byte_start: int
    byte_length: int
    sha256: str
    part: str
    window_id: str
    first_ts: int
    last_ts: int
    event_count: int
    epoch: int
    source_partition: int
    source_offset: int
    source_last_offset: int


def copy_key(key: str, n: int) -> str:
    """The object of the copy of block `n` of the object `key`."""
    return f"{PINNED_PREFIX}{key[key.index('/date=') + 1 :].removesuffix(OBJECT_SUFFIX)}-b{n}{OBJECT_SUFFIX}"


def _manifest(key: str, who: dict[str, str], source: _Source) -> Manifest:
    """Of the object that holds nothing but the copy."""
    block = Block(
        n=0,
        tenant=who["tenant"],
        session_id=who["session"],
        part=source.part,
        window_id=source.window_id,
        byte_start=len(EMPTY_FRAME),
        byte_length=source.byte_length,
        first_ts=source.first_ts,
        last_ts=source.last_ts,
        event_count=source.event_count,
        sha256=source.sha256,
        source_offset=source.source_offset,
        source_last_offset=source.source_last_offset,
    )
    name = source.object.rpartition("/")[2]
    return Manifest(
        object=key,
        topic=name.rsplit("-", 3)[0],
        epoch=source.epoch,
        source_partition=source.source_partition,
        first=source.source_offset,
        last=source.source_last_offset,
        retention=PINNED,
        expires_at=PINNED_UNTIL_S,
        blocks=(block,),
    )
