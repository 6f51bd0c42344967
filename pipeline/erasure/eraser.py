"""Carries erasures out, round by round, until nothing is found any more. May be killed anywhere: the next round begins anew.

A round takes the oldest requests together, so that thousands cost few mutations and each object is rewritten once:

 1. A user's sessions are those known once worker and sinks are past all that was accepted before the round.
 2. A request for each session goes into the log; wait until worker, sinks and session reader are past it.
 3. `erasures` gets the sessions: from then on guarded inserts refuse them. Only now, or blocks would hide from step 5.
    Wait for inserts that began before: they may not have seen it.
 4. Rows are deleted (`events`, `sessions`).
 5. Objects are rewritten on the condition that they are still what was read, then their manifests; each is read again; old
    versions go. What cannot be read or is not there though it must be holds up its own sessions, and says so.
 6. What they are found by goes last (`blocks`, `session_users`, `pins`).
 7. Look again; from 4 once more while anything is found. Wait for the replaced parts. Then the certificates, and a record on
    replay.erasures.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import msgspec
import pyarrow as pa
import structlog

from pipeline.erasure import blocks
from pipeline.erasure.blocks import Session
from pipeline.erasure.certificate import Findings, certificate
from pipeline.erasure.log import ErasureLog
from pipeline.erasure.positions import Positions
from pipeline.erasure.requests import Request, Requests, hashed
from pipeline.erasure.rows import CONTENT, FINDERS, Rows
from pipeline.errors import FatalError, PoisonError, RetryableError
from pipeline.settings import Settings
from pipeline.storage.blobs import BlobStore, MissingBlobError
from pipeline.storage.blocks import encode_manifest, manifest_key, read_manifest
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.pins import PINNED_PREFIX
from pipeline.topics.catalogue import catalogue

REQUESTS_AT_ONCE = 1_000
SESSIONS_AT_ONCE = 900
"""Their names, the longest there may be, stay below the 256 KiB that a statement may have."""

LOOK_EVERY_S = 0.5
TOLD_EVERY_S = 5.0
REWRITES_MAX = 10
LOOKS_MAX = 10
FORGET_LIMIT_S = 60.0
TABLES = (*CONTENT, *FINDERS)

log = structlog.get_logger()


class StoppedError(Exception):
    """We are told to stop; the next one begins the round anew."""


class Eraser:
    """For one thread. `stop` ends a round between two steps."""

    def __init__(
        self, settings: Settings, store: BlobStore, stop: threading.Event, *, is_ours: Callable[[], bool] = lambda: True
    ) -> None:
        """`is_ours` says whether it is still for us to erase; asked often."""
        self._settings = settings
        self._topics = catalogue(settings)
        self._store = store
        self._stop = stop
        self._is_ours = is_ours
        self.skip: Collection[str] = ()
        """Ids of requests that are left alone for now."""
        self.stuck: frozenset[str] = frozenset()
        """Ids of the last round's requests that wait for somebody to mend something; all others are done."""
        self._warehouse = ClickHouse(settings)
        self._requests = Requests(self._warehouse)
        self._rows = Rows(self._warehouse)
        self._positions = Positions(settings, self._warehouse)
        self._log = ErasureLog(settings)
        self._round: list[Request] = []
        self._why: dict[Session, Request] = {}
        self._told_s = 0.0

    def close(self) -> None:
        self._positions.close()
        self._warehouse.close()

    def round(self) -> int:
        """Carries out the oldest requests; returns how many are done. Raises RetryableError, after which the round is begun
        anew."""
        waiting = [
            each for each in self._requests.under_way(REQUESTS_AT_ONCE + len(self.skip)) if each.id not in self.skip
        ]
        # Sessions first: a user's request may have to wait for all that is on its way.
        self._round = [each for each in waiting if each.kind == "session"] or waiting
        if not self._round:
            return 0
        resumed = {each.id for each in self._round if each.status == "running"}
        self._say("its turn")
        if self._round[0].kind == "user":
            self._pass(self._positions.raw_ends())
        asked = {each.id: self._sessions(each) for each in self._round}
        self._why = {session: each for each in self._round for session in asked[each.id]}
        self._remember(asked)
        found = Findings()
        left = iter(sorted(self._why))
        while chunk := list(islice(left, SESSIONS_AT_ONCE)):
            self._erase(chunk, found)
        self._stick(asked, found)
        done = [
            self._certified(each, asked[each.id], found, resumed=each.id in resumed)
            for each in self._round
            if each.id not in self.stuck
        ]
        if done:
            self._requests.write(*done)
            self._requests.forget_how_they_came_about(done)
        for each in done:
            log.info("erasure_done", id=each.id, kind=each.kind, sessions=len(asked[each.id]))
        self._round = []
        return len(done)

    def _stick(self, asked: Mapping[str, Sequence[Session]], found: Findings) -> None:
        """Says of requests what somebody must mend for them."""
        why = {
            each.id: found.stuck[session]
            for each in self._round
            for session in asked[each.id]
            if session in found.stuck
        }
        self.stuck = frozenset(why)
        told = [
            msgspec.structs.replace(each, revision=each.revision + 1, status="running", waits_for=why[each.id])
            for each in self._round
            if each.id in why
        ]
        if told:
            self._requests.write(*told)
        for each in told:
            log.error("erasure_is_stuck", id=each.id, why=each.waits_for)

    def say(self, why: str) -> None:
        """What the round's requests wait for."""
        if self._round:
            self._say(why)

    def tidy(self) -> None:
        """What an eraser that was killed left of requests that are done."""
        self._requests.forget_what_a_crash_left()

    def _sessions(self, request: Request) -> list[Session]:
        """Those of a user, with those that an earlier round knew of and may have erased by now."""
        if request.kind == "session":
            return [(request.tenant, request.subject)]
        before = json.loads(request.certificate) if request.certificate else []
        known = {(request.tenant, session_id) for session_id in before}
        return sorted(known | set(self._rows.sessions_of(request.tenant, request.subject)))

    def _remember(self, asked: Mapping[str, Sequence[Session]]) -> None:
        """Writes down what sessions the users' requests are about, before anything is deleted that they are found by."""
        for n, request in enumerate(self._round):
            if request.kind == "user":
                names = json.dumps([name for _, name in asked[request.id]])
                self._round[n] = msgspec.structs.replace(request, revision=request.revision + 1, certificate=names)
        self._requests.write(*self._round)

    def _erase(self, sessions: Sequence[Session], found: Findings) -> None:
        places = self._log.ask(sessions, self._why)
        found.places |= places
        ends: dict[int, int] = {}
        for session in sessions:
            partition, offset = places[session]
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        self._pass(ends)
        self._until(lambda: self._positions.not_forgotten(places), within_s=FORGET_LIMIT_S)
        self._forbid(sessions, found)
        for _ in range(LOOKS_MAX):
            sessions = [each for each in sessions if each not in found.stuck]
            if not self._delete(sessions, found):
                break
        else:
            raise RetryableError("rows or blocks of an erased session come again and again: the round is begun anew")
        self._until(lambda: self._rows.unfinished(TABLES))  # also those of an eraser before us, which was killed
        self._wait_for_parts()
        self._log.tell(sessions, self._why, found.places)

    # waiting

    def _pass(self, ends: dict[int, int]) -> None:
        """Until worker and sinks are past these offsets of replay.batches, and the session reader past what came of it."""
        self._until(lambda: self._positions.worker_behind(ends))
        told = self._positions.session_ends()
        self._until(lambda: self._positions.sinks_behind(ends))
        self._until(lambda: self._positions.sessions_behind(told))

    def _until(self, behind: Callable[[], str], *, within_s: float = math.inf) -> None:
        """Waits, and says for what. Raises RetryableError after `within_s`."""
        until = time.monotonic() + within_s
        while why := behind():
            self._go_on()
            if time.monotonic() > until:
                raise RetryableError(f"{why}: it is asked again")
            if time.monotonic() - self._told_s > TOLD_EVERY_S:
                self._say(why)
            self._stop.wait(LOOK_EVERY_S)

    def _go_on(self) -> None:
        if self._stop.is_set() or not self._is_ours():
            raise StoppedError

    def _say(self, why: str) -> None:
        self._told_s = time.monotonic()
        for n, request in enumerate(self._round):
            self._round[n] = msgspec.structs.replace(
                request, revision=request.revision + 1, status="running", waits_for=why
            )
        self._requests.write(*self._round)
        log.debug("erasures_wait", requests=len(self._round), why=why)

    # the stores

    def _forbid(self, sessions: Sequence[Session], found: Findings) -> None:
        """From here on no guarded insert lets them in; those that began earlier are waited for."""
        rows = [
            {
                "tenant": tenant,
                "session_id": session_id,
                "epoch": self._settings.epoch,
                "source_partition": found.places[tenant, session_id][0],
                "source_offset": found.places[tenant, session_id][1],
            }
            for tenant, session_id in sessions
        ]
        names = _ERASURES.names
        rows += [
            dict(zip(names, place, strict=True))
            for place in self._rows.places(sessions, but_epoch=self._settings.epoch)
        ]
        self._warehouse.insert("erasures", pa.Table.from_pylist(rows, _ERASURES))
        forbidden_s = time.monotonic()

        def running() -> str:
            count = self._rows.inserts_before(time.monotonic() - forbidden_s)
            return f"{count} inserts that began before" if count else ""

        self._until(running)

    def _delete(self, sessions: Sequence[Session], found: Findings) -> bool:
        """One pass over all stores; whether there was anything."""
        keys = self._rows.objects(sessions)
        rows = {table: self._rows.count(table, sessions) for table in TABLES}
        if not keys and not any(rows.values()):
            return False
        for table, counts in rows.items():
            found.add_rows(table, counts)
        for table in CONTENT:
            self._rows.delete(table, sessions)
        for key, lives in keys.items():
            self._rewritten(key, sessions, found, lives=lives)
        for table in FINDERS:
            self._rows.delete(table, [each for each in sessions if each not in found.stuck])
        self._until(lambda: self._rows.unfinished(TABLES))
        return True

    def _rewritten(self, key: str, sessions: Sequence[Session], found: Findings, *, lives: bool) -> None:
        """Where the object cannot be had or read its sessions are stuck, and nobody else waits for them."""
        self._go_on()
        try:
            self._rewrite(key, frozenset(sessions), found, lives=lives)
        except (PoisonError, MissingBlobError, FatalError, ValueError) as error:
            why = error.reason if isinstance(error, PoisonError) else type(error).__name__
            told = (
                f"object {key} cannot be erased from ({why}): put the right bytes back; or, where they are lost for good, "
                "delete it with its old versions, its manifest and its rows in `blocks`"
            )
            found.stuck |= dict.fromkeys(self._rows.in_object(key, sessions), told)

    def _wait_for_parts(self) -> None:
        """Until the bytes of what the mutations replaced are gone from the warehouse's disk."""
        replaced = self._rows.old_parts(TABLES)

        def still_there() -> str:
            left = len(replaced & self._rows.old_parts(TABLES))
            return f"{left} replaced parts are still on the warehouse's disk" if left else ""

        self._until(still_there)

    def _rewrite(self, key: str, sessions: frozenset[Session], found: Findings, *, lives: bool) -> None:
        """The object without the sessions' blocks, on the condition that it is still what was read."""
        for _ in range(REWRITES_MAX):
            try:
                body, etag = self._store.get(key)
            except MissingBlobError:
                if not key.startswith(PINNED_PREFIX):
                    if lives:
                        raise  # it is nowhere, though it must be: another store?
                    break  # its class has expired
                if self._store.put_if_absent(key, blocks.burnt(key, self._settings.epoch)):
                    break
                continue
            erased = blocks.erase(body, sessions)
            if erased is None:
                break
            if self._store.replace_if_match(key, erased.body, etag):
                found.blocks.update(erased.blocks)
                found.bytes.update(erased.bytes)
                for session in erased.blocks:
                    found.objects.setdefault(session, set()).add(key)
                break
        else:
            raise RetryableError(f"object {key} changes all the time")
        with suppress(MissingBlobError):  # expired, and gone
            self._rewrite_manifest(key)
            if blocks.holds(self._store.get(key)[0], sessions):
                raise RetryableError(f"object {key} holds an erased session again")
        for each in (key, manifest_key(key)):
            self._store.purge_versions(each)

    def _rewrite_manifest(self, key: str) -> None:
        """The manifest beside the object says what the object says."""
        name = manifest_key(key)
        for _ in range(REWRITES_MAX):
            body, _ = self._store.get(key)
            wanted = encode_manifest(read_manifest(body))
            try:
                text, etag = self._store.get(name)
            except MissingBlobError:
                if self._store.put_if_absent(name, wanted):
                    return
                continue
            if text == wanted or self._store.replace_if_match(name, wanted, etag):
                return
        raise RetryableError(f"manifest {name} changes all the time")

    # afterwards

    def _certified(self, request: Request, sessions: Sequence[Session], found: Findings, *, resumed: bool) -> Request:
        told = certificate(
            sessions, found, self._topics, epoch=self._settings.epoch, done_ms=_now_ms(), resumed=resumed
        )
        return msgspec.structs.replace(
            request,
            revision=request.revision + 1,
            status="done",
            waits_for="",
            subject=hashed(request.subject) if request.kind == "user" else request.subject,
            certificate=msgspec.json.encode(told).decode(),
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_ERASURES = pa.schema(
    [
        ("tenant", pa.string()),
        ("session_id", pa.string()),
        ("epoch", pa.uint32()),
        ("source_partition", pa.uint32()),
        ("source_offset", pa.uint64()),
    ]
)
