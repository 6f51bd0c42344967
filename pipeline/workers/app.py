"""The Faust worker: membership, fetching and commits are Faust's; what is exact is ours.

Faust's Table was measured to lose messages over rebalances, so state lives in a compacted topic of our own, loaded for each
generation of the group (`store`). The rules, in the order they are carried out for a chunk of records:

 1. A record below `next` is a repeat: skipped. One above it is fatal, unless the log's start overtook us: then the lost range
    becomes one clean record and an alarm.
 2. A record at or below its session's `applied` has its outputs already; its state is written again under our generation
    where another's holds it, because our commit relies on it.
 3. Clean records, session updates and dead letters are produced; all must be acked.
 4. Then the states touched are written, and older generations' records of them tombstoned; all must be acked.
 5. Only then the chunk's body returns, and Faust commits (fenced by generation).

`take` acks a chunk even when its body raises, so every failure ends the process before that: the next one starts from what
was committed, and what is repeated gives the same bytes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

import faust
import structlog

from pipeline.errors import FatalError, PausedError, ReplayError
from pipeline.model.batches import session_key
from pipeline.observe.ready import notify_ready
from pipeline.settings import Settings
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from pipeline.workers.breaker import Breaker
from pipeline.workers.chain import Where, lost
from pipeline.workers.outputs import Outputs
from pipeline.workers.reference import RawRecord, process
from pipeline.workers.rules import rules
from pipeline.workers.sessionize import close_by_clock, may_be_released
from pipeline.workers.state import SessionState, encode_state
from pipeline.workers.store import Held, Partition, load, log_start, state_key
from pipeline.workers.watchdog import Watchdog

CHUNK_RECORDS = 400
CHUNK_WAIT_S = 0.02
HEARTBEAT_EVERY_S = 5.0
HOUSEKEEPING_EVERY_S = 30.0
PAUSE_TOLD_EVERY_S = 60.0
EXIT_CODE = 9

log = structlog.get_logger()


class Worker:
    """The sessions of the partitions of one generation, and what is done with a chunk of records."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = catalogue(settings)
        codecs = Codecs(self._topics, schema_ids(settings))
        self._codec = codecs.batches
        self._rules = rules(settings)
        self._outputs = Outputs(settings, self._topics, codecs)
        self._breaker = Breaker(
            consecutive_max=settings.dead_letters_in_a_row_max, percent_max=settings.dead_letters_percent_max
        )
        self._generation = -1
        self._partitions: dict[int, Partition] = {}
        self._told_closed: dict[bytes, int] = {}

    async def chunk(self, app: faust.App, events: list[Any]) -> None:
        """All of one chunk, to the last ack. Raises FatalError where the process must end."""
        await self._be_current(app)
        touched: dict[tuple[int, bytes], Held] = {}
        for event in events:
            message = event.message
            partition = self._partitions.get(message.partition)
            if message.generation_id != self._generation or partition is None:
                leave_unacked(app.consumer, message)
                continue  # fetched under an older assignment: not ours to decide
            self._record(message, partition, touched)
        await self.flush()
        self._write_states(touched)
        await self.flush()

    async def _be_current(self, app: faust.App) -> None:
        """Loads the state of this generation and assignment where it is not loaded yet."""
        name = self._topics.batches.name
        while True:
            generation = app.consumer_generation_id
            assigned = sorted(each.partition for each in app.consumer.assignment() if each.topic == name)
            if generation == self._generation and assigned == sorted(self._partitions):
                return
            began = time.monotonic()
            loaded = await asyncio.to_thread(load, self._settings, self._topics, generation, assigned)
            self._generation, self._partitions = generation, loaded
            self._told_closed.clear()
            for number, partition in loaded.items():
                for loser in partition.losers:
                    self._outputs.state(loser, None, number)
            log.info(
                "state_loaded",
                generation=generation,
                partitions=assigned,
                sessions=sum(len(each.held) for each in loaded.values()),
                ms=int((time.monotonic() - began) * 1000),
            )

    def _record(self, message: Any, partition: Partition, touched: dict[tuple[int, bytes], Held]) -> None:
        number, offset = message.partition, message.offset
        if offset < partition.next_offset:
            return
        if offset > partition.next_offset:
            self._skip_lost(message, partition)
        partition.next_offset = offset + 1
        record = RawRecord(message.topic, number, offset, _at_ms(message), message.key, message.value)
        known = _Overlay(number, touched, partition.held)
        outcome = process(record, known, self._codec, self._rules)
        session = session_key(outcome.clean.tenant, outcome.clean.session_id)
        held = touched.get((number, session)) or partition.held.get(session)
        if outcome.dead is None and held is not None and offset <= held.state.applied:
            touched.setdefault((number, session), held)  # its outputs exist; our commit relies on this state
            return
        why_not = self._breaker.why_not(outcome.dead.reason if outcome.dead else None)
        if why_not is not None:
            raise PausedError(f"{message.topic} partition {number} offset {offset}: {why_not}")
        if outcome.dead is not None:
            self._outputs.dead_letter(outcome.dead)
            log.warning("dead_letter", partition=number, offset=offset, reason=outcome.dead.reason)
        self._outputs.clean(outcome.clean, message.key)
        for update in outcome.sessions:
            self._outputs.session(update, record.timestamp_ms)
        if outcome.state is not None:
            touched[number, session] = Held(outcome.state, self._generation)

    def _skip_lost(self, message: Any, partition: Partition) -> None:
        """An offset above the wanted one: allowed only where the log itself begins later now."""
        number, offset, wanted = message.partition, message.offset, partition.next_offset
        begins = log_start(self._settings, self._topics, number)
        if not wanted < begins or offset > begins:
            raise FatalError(
                f"{message.topic} partition {number} jumps from offset {wanted} to {offset}, and its log begins at "
                f"{begins}: records are missing that retention did not remove"
            )
        log.error("retention_overtook_the_worker", partition=number, first=wanted, last=offset - 1)
        where = Where(message.topic, number, wanted, _at_ms(message))
        self._outputs.clean(lost(wanted, offset - 1, where, self._rules), None)

    def _write_states(self, touched: dict[tuple[int, bytes], Held]) -> None:
        """The new record first, older generations' tombstone after it, on the same partition."""
        for (number, session), held in touched.items():
            known = self._partitions[number].held
            before = known.get(session)
            if before is held and held.generation == self._generation:
                continue  # relied on, and already ours
            self._outputs.state(state_key(session, self._generation), encode_state(held.state), number)
            if before is not None and before.generation < self._generation:
                self._outputs.state(state_key(session, before.generation), None, number)
            known[session] = Held(held.state, self._generation)

    async def flush(self) -> None:
        """Until everything written is acked. Raises FatalError where anything is not."""
        await asyncio.to_thread(self._outputs.flush)

    def housekeeping(self, app: faust.App, now_ms: int) -> None:
        """Tells of idle sessions that they are closed and releases those past their grace. No await: a chunk's own
        writes of the same session come wholly before or wholly after."""
        if app.consumer_generation_id != self._generation:
            return
        for number, partition in self._partitions.items():
            for session, held in list(partition.held.items()):
                if may_be_released(held.state, self._rules, now_ms):
                    self._outputs.state(state_key(session, self._generation), None, number)
                    if held.generation < self._generation:
                        self._outputs.state(state_key(session, held.generation), None, number)
                    del partition.held[session]
                    self._told_closed.pop(session, None)
                elif self._told_closed.get(session) != held.state.applied:
                    closed = close_by_clock(held.state, self._rules, number, now_ms)
                    if closed is not None:
                        self._outputs.session(closed, now_ms)
                        self._told_closed[session] = held.state.applied


def leave_unacked(consumer: Any, message: Any) -> None:
    """Takes a message out of Faust's account of acks, which looks at offsets and not at generations: acked by `take` with
    its chunk, it would let the next commit pass what this generation has yet to fetch anew."""
    message.acked = True
    consumer._unacked_messages.discard(message)


def _at_ms(message: Any) -> int:
    """LogAppendTime; Faust hands it on in seconds, as a float that must not be cut."""
    at_ms: int = round(message.timestamp * 1000)
    return at_ms


class _Overlay:
    """The states that a record sees: those touched in this chunk before those held."""

    def __init__(self, number: int, touched: dict[tuple[int, bytes], Held], held: dict[bytes, Held]) -> None:
        self._number, self._touched, self._held = number, touched, held

    def get(self, key: tuple[str, str], /) -> SessionState | None:
        session = session_key(*key)
        found = self._touched.get((self._number, session)) or self._held.get(session)
        return found.state if found else None


def make_app(settings: Settings, watchdog: Watchdog) -> faust.App:
    """The Faust application; see the module's docstring for what is Faust's and what is ours."""
    topics = catalogue(settings)
    datadir = settings.home.absolute() / "faust"
    datadir.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        settings.worker_group,
        broker=[f"aiokafka://{each}" for each in settings.kafka.split(",")],
        datadir=str(datadir),
        processing_guarantee="at_least_once",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        key_serializer="raw",
        value_serializer="raw",
        broker_commit_interval=0.3,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.5,
        broker_request_timeout=20.0,
        broker_max_poll_records=500,
        consumer_max_fetch_size=settings.batch_bytes_max + (64 << 10),
        stream_buffer_maxsize=512,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
        worker_redirect_stdouts=False,
    )
    raw = app.topic(
        topics.batches.name, key_serializer="raw", value_serializer="raw", partitions=topics.batches.partitions
    )
    worker = Worker(settings)

    @app.agent(raw, concurrency=1, name="chain")
    async def chain(stream: Any) -> None:
        async for events in stream.take_events(CHUNK_RECORDS, within=CHUNK_WAIT_S):
            watchdog.busy()
            try:
                await worker.chunk(app, events)
            except PausedError as error:
                watchdog.idle()
                await _pause(str(error))
            except asyncio.CancelledError:
                _die("cancelled in the middle of a chunk")
            except BaseException as error:
                _die(_why(error))
            watchdog.idle()

    @app.timer(HEARTBEAT_EVERY_S)  # type: ignore[untyped-decorator]
    async def heartbeat() -> None:
        watchdog.alive()

    @app.timer(HOUSEKEEPING_EVERY_S)  # type: ignore[untyped-decorator]
    async def housekeeping() -> None:
        try:
            worker.housekeeping(app, time.time_ns() // 1_000_000)
            await worker.flush()
        except BaseException as error:
            _die(_why(error))

    async def joined(_sender: Any, *_args: Any, **_kwargs: Any) -> None:
        notify_ready()

    app.on_partitions_assigned.connect(joined, weak=False)  # type: ignore[arg-type]

    return app


async def _pause(why: str) -> None:
    """Until the process is ended: the chunk is never acked, so whoever comes next begins with it.

    Faust would wait on SIGTERM for the chunk to end, which it never does; so the signal ends the process here.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, _die, "told to stop while paused")
    while True:
        log.error(
            "worker_paused",
            why=why,
            mend="deploy a worker that can read them, or allow more with REPLAY_DEAD_LETTERS_IN_A_ROW_MAX and "
            "REPLAY_DEAD_LETTERS_PERCENT_MAX, and restart it",
        )
        await asyncio.sleep(PAUSE_TOLD_EVERY_S)


def _why(error: BaseException) -> str:
    """Ours tell places and kinds only; what another's message holds is not known, so its type must do."""
    return str(error) if isinstance(error, ReplayError) else type(error).__name__


def _die(why: str) -> None:
    """Ends the process before Faust can ack. The supervisor starts it anew from the committed offsets."""
    log.error("worker_ends", why=why)
    sys.stderr.flush()
    os._exit(EXIT_CODE)


class _Ending(faust.Worker):
    """Faust's worker, whose stop comes to an end whatever the broker does."""

    watchdog: Watchdog

    async def stop(self) -> None:
        self.watchdog.stopping()
        await super().stop()


def run(settings: Settings) -> None:
    """`replay worker`: until SIGTERM, then drains, commits and leaves the group."""
    watchdog = Watchdog()
    app = make_app(settings, watchdog)
    worker = _Ending(app, loglevel="WARNING", redirect_stdouts=False, override_logging=False, quiet=True)
    worker.watchdog = watchdog
    worker.execute_from_commandline()
