"""replay.clean → rows in ClickHouse, each event once; replay.sessions → sessions and their users.

A partition's rows go in by *claims*, a chain of ranges of source offsets (table `claims`): claim a range, insert it, replace
its counts by minute, mark it done. max(offset) of the rows would be no mark: an insert over two months is not atomic.
Whoever takes a partition up first does again what was claimed and not marked done. An insert moves only rows whose claim is
not done, that are not there yet, and whose session is not erased: a zombie's late insert finds nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from pipeline.errors import PoisonError, RetryableError
from pipeline.model.batches import CleanBatch
from pipeline.settings import Settings
from pipeline.sinks.consume import CleanReader
from pipeline.sinks.delivery import NOTHING_DONE, Done, FlushLimits, MovedOnError, NeedMore, Taken, UnstorableError
from pipeline.sinks.lives import TopicLives
from pipeline.sinks.rows import event_rows, minute_rows
from pipeline.sinks.sessions import SessionReader
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.staging import Stage
from pipeline.topics.commits import Committed

log = structlog.get_logger()


@dataclass(frozen=True)
class Claim:
    """Source offsets first..last of one partition, bound to go in together."""

    first: int
    last: int


_MINE = "epoch = {epoch:UInt32} AND source_partition = {partition:UInt32}"

_NOT_DONE = f"NOT EXISTS (SELECT 1 FROM {{db}}.claims WHERE {_MINE} AND first = {{first:UInt64}} AND state = 'done')"

_NEW = f"""
    seq NOT IN (
        SELECT seq FROM {{db}}.events
        WHERE {_MINE} AND source_offset BETWEEN {{first:UInt64}} AND {{last:UInt64}}
          AND (tenant, session_id) IN (SELECT tenant, session_id FROM {{stage}}))
    AND (tenant, session_id, source_offset) NOT IN (
        SELECT s.tenant, s.session_id, s.source_offset FROM {{stage}} AS s
        INNER JOIN (SELECT tenant, session_id, source_offset AS up_to FROM {{db}}.erasures
                    WHERE {_MINE} AND source_offset >= {{first:UInt64}}) AS e
            ON e.tenant = s.tenant AND e.session_id = s.session_id
        WHERE s.source_offset <= e.up_to)
"""

_GUARD = f"{_NOT_DONE} AND {_NEW}"
REFUSED_AT_ONCE = 100
"""So many refused batches of a block are told at once; where it has more, more are found by its next flush."""


class WarehouseStore:
    """See `pipeline.sinks.consume.Store`."""

    def __init__(self, settings: Settings) -> None:
        self._epoch = settings.epoch
        self._warehouse = ClickHouse(settings)
        self._events = Stage(self._warehouse, "events")
        self._undone: dict[int, list[Claim]] = {}

    def open(self, partition: int, committed: Committed | None) -> int:
        # The chain is done in order: nothing before the last done claim matters any more.
        states = {
            Claim(first, last): done
            for first, last, done in self._warehouse.rows(
                f"SELECT first, last, countIf(state = 'done') FROM {{db}}.claims WHERE {_MINE} AND first >= "
                f"(SELECT max(first) FROM {{db}}.claims WHERE {_MINE} AND state = 'done') "
                "GROUP BY first, last ORDER BY first",
                epoch=self._epoch,
                partition=partition,
            )
        }
        done = [claim.last for claim, found in states.items() if found]
        self._undone[partition] = [claim for claim, found in states.items() if not found]
        for claim in self._undone[partition]:
            log.warning("claim_found_undone", partition=partition, first=claim.first, last=claim.last)
        return max(done, default=NOTHING_DONE)

    def flush(self, partition: int, mark: int, batches: list[Taken]) -> Done | NeedMore:
        reached = batches[-1].batch.source_last_offset
        claim = self._claim(partition, mark + 1, reached)
        if claim.last > reached:
            return NeedMore(claim.last)
        self._insert(partition, claim, [each for each in batches if each.batch.source_last_offset <= claim.last])
        self._undone[partition] = [each for each in self._undone.get(partition, ()) if each.first != claim.first]
        return Done(claim.last)

    def close(self, partition: int) -> None:
        self._undone.pop(partition, None)

    def end(self) -> None:
        """Drops what is this process's own in the warehouse."""
        self._events.drop()
        self._warehouse.close()

    def _claim(self, partition: int, first: int, last: int) -> Claim:
        """The claim that begins at `first`: an undone one of before, ours, or that of whoever was faster."""
        for known in self._undone.get(partition, ()):
            if known.first == first:
                return known
        where = {"epoch": self._epoch, "partition": partition, "first": first}
        self._warehouse.command(
            "INSERT INTO {db}.claims (epoch, source_partition, first, last, state) "
            f"SETTINGS insert_deduplicate = 1, insert_deduplication_token = 'claim-{self._epoch}-{partition}-{first}' "
            "SELECT {epoch:UInt32}, {partition:UInt32}, {first:UInt64}, {last:UInt64}, 'claim' "
            f"WHERE NOT EXISTS (SELECT 1 FROM {{db}}.claims WHERE {_MINE} AND first = {{first:UInt64}} AND state = 'claim') "
            f"AND (SELECT coalesce(maxOrNull(toInt64(last)), -1) FROM {{db}}.claims WHERE {_MINE} AND state = 'claim') "
            "= toInt64({first:UInt64}) - 1",
            **where,
            last=last,
        )
        found = self._warehouse.rows(
            f"SELECT last FROM {{db}}.claims WHERE {_MINE} AND first = {{first:UInt64}} AND state = 'claim'", **where
        )
        if not found:
            raise ClaimChainMovedError(partition, first)
        return Claim(first, found[0][0])

    def _insert(self, partition: int, claim: Claim, batches: list[Taken]) -> None:
        name = f"{self._epoch}-{partition}-{claim.first}-{claim.last}"
        where = {"epoch": self._epoch, "partition": partition, "first": claim.first, "last": claim.last}
        rows = event_rows(each.batch for each in batches)
        try:
            self._events.insert(rows, token=f"rows-{name}", guard=_GUARD, **where)
        except PoisonError as poison:
            raise self._refused(batches, name, where) from poison
        self._warehouse.insert("minutes", minute_rows(rows, claim.first))
        self._warehouse.command(
            "INSERT INTO {db}.claims (epoch, source_partition, first, last, state) "
            f"SETTINGS insert_deduplicate = 1, insert_deduplication_token = 'done-{name}' "
            "SELECT {epoch:UInt32}, {partition:UInt32}, {first:UInt64}, {last:UInt64}, 'done' "
            f"WHERE {_NOT_DONE}",
            **where,
        )

    def _refused(self, batches: list[Taken], name: str, where: dict[str, int]) -> UnstorableError | RetryableError:
        """Which batches hold the value that the warehouse does not take. Pieces without one go in; what of the claim is
        left goes in with the next flush, past what is there already. The same batches are halved in the same way by all."""
        found: dict[int, PoisonError] = {}
        pieces = [[each for each in batches if each.batch.event_count]]
        while pieces and len(found) < REFUSED_AT_ONCE:
            piece = pieces.pop(0)
            first, last = piece[0].batch.source_offset, piece[-1].batch.source_offset
            rows = event_rows(each.batch for each in piece)
            try:
                self._events.insert(rows, token=f"rows-{name}-{first}-{last}", guard=_GUARD, **where)
            except PoisonError as poison:
                if len(piece) == 1:
                    found[first] = poison
                else:
                    pieces += [piece[: len(piece) // 2], piece[len(piece) // 2 :]]
        return (
            UnstorableError(found) if found else RetryableError("the warehouse refused a block and took it in pieces")
        )

    def retry(self, batch: CleanBatch) -> None:
        """Stores a batch that was a dead letter: rows that are not there yet, and the counts of its claim anew. Raises
        PoisonError where it is one still, RetryableError where the sink has not done its claim yet."""
        mine = {"epoch": batch.epoch, "partition": batch.source_partition}
        claims = self._warehouse.rows(
            f"SELECT first, last FROM {{db}}.claims WHERE {_MINE} AND state = 'done' "
            "AND first <= {offset:UInt64} AND last >= {offset:UInt64}",
            **mine,
            offset=batch.source_offset,
        )
        if not claims:
            raise RetryableError(f"the warehouse sink has not passed source offset {batch.source_offset} yet")
        first, last = claims[0]
        where = {**mine, "first": first, "last": last}
        token = f"retry-{batch.epoch}-{batch.source_partition}-{batch.source_offset}"
        self._events.insert(event_rows([batch]), token=token, guard=_NEW, **where)
        self._warehouse.command(
            "INSERT INTO {db}.minutes (tenant, minute, type, source, epoch, source_partition, first, events, expires_at) "
            "SELECT tenant, toStartOfMinute(ts) AS minute, type, source, epoch, source_partition, {first:UInt64}, count(), "
            f"max(expires_at) FROM {{db}}.events WHERE {_MINE} AND source_offset BETWEEN {{first:UInt64}} AND {{last:UInt64}} "
            "GROUP BY tenant, minute, type, source, epoch, source_partition",
            **where,
        )


class ClaimChainMovedError(MovedOnError):
    """Somebody else went on with this partition's chain: we are not its owner any more, or read it too long ago."""

    def __init__(self, partition: int, first: int) -> None:
        super().__init__(f"the claims of partition {partition} moved on beyond {first}: another sink owns it")


def run(settings: Settings) -> None:
    """`replay sink warehouse`: both readers until SIGTERM."""
    store = WarehouseStore(settings)
    limits = FlushLimits(
        rows=settings.warehouse_flush_rows,
        payload_bytes=settings.warehouse_flush_bytes,
        age_ms=settings.warehouse_flush_age_ms,
    )
    sessions = SessionReader(settings)
    lives = TopicLives(settings)
    reader = CleanReader(settings, name="warehouse", store=store, limits=limits, same_topics=lives.check)
    sessions.start()
    try:
        reader.run()
    finally:
        sessions.stop()
        lives.end()
        store.end()
