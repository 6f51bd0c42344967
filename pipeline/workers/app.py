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
from faust.types import TP

from pipeline.errors import PausedError, ReplayError
from pipeline.observe.ready import notify_ready
from pipeline.settings import Settings
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from pipeline.workers.assigned import Assigned, Touched
from pipeline.workers.breaker import Breaker
from pipeline.workers.outputs import Outputs
from pipeline.workers.rules import rules
from pipeline.workers.store import Partition, load, log_start
from pipeline.workers.watchdog import Watchdog

CHUNK_RECORDS = 400
CHUNK_WAIT_S = 0.02
HEARTBEAT_EVERY_S = 5.0
HOUSEKEEPING_EVERY_S = 30.0
PAUSE_TOLD_EVERY_S = 60.0
EXIT_CODE = 9

log = structlog.get_logger()


class Worker:
    """What the process does with a chunk of records, and between chunks."""

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
        self._assigned = self._take_over(-1, {})

    async def chunk(self, app: faust.App, events: list[Any]) -> None:
        """All of one chunk, to the last ack. Raises FatalError where the process must end."""
        await self._be_current(app)
        assigned = self._assigned
        touched: Touched = {}
        for event in events:
            message = event.message
            if message.generation_id != assigned.generation or message.partition not in assigned.partitions:
                leave_unacked(app.consumer, message)
                continue  # fetched under an older assignment: not ours to decide
            assigned.record(message, touched)
        await self.flush()
        assigned.write_states(touched)
        await self.flush()

    async def _be_current(self, app: faust.App) -> None:
        """Loads the state of this generation and assignment where it is not loaded yet."""
        name = self._topics.batches.name
        while True:
            generation = app.consumer_generation_id
            numbers = sorted(each.partition for each in app.consumer.assignment() if each.topic == name)
            if generation == self._assigned.generation and numbers == sorted(self._assigned.partitions):
                return
            began = time.monotonic()
            loaded = await asyncio.to_thread(load, self._settings, self._topics, generation, numbers)
            self._assigned.close()
            self._assigned = self._take_over(generation, loaded)
            for number, partition in loaded.items():
                for loser in partition.losers:
                    self._outputs.state(loser, None, number)
            log.info(
                "state_loaded",
                generation=generation,
                partitions=numbers,
                sessions=sum(len(each.sessions) for each in loaded.values()),
                ms=int((time.monotonic() - began) * 1000),
            )

    def _take_over(self, generation: int, partitions: dict[int, Partition]) -> Assigned:
        def begins_at(number: int) -> int:
            return log_start(self._settings, self._topics, number)

        return Assigned(generation, partitions, self._outputs, self._codec, self._rules, self._breaker, begins_at)

    async def flush(self) -> None:
        """Until everything written is acked. Raises FatalError where anything is not."""
        await asyncio.to_thread(self._outputs.flush)

    def housekeeping(self, app: faust.App, now_ms: int) -> None:
        """Closes and releases by the clock (see `Assigned.tidy`)."""
        assigned = self._assigned
        if app.consumer_generation_id != assigned.generation:
            return

        def is_read_up(number: int) -> bool:
            end = app.consumer.highwater(TP(self._topics.batches.name, number))
            return end is not None and assigned.partitions[number].next_offset >= end

        assigned.tidy(now_ms, is_read_up)


def leave_unacked(consumer: Any, message: Any) -> None:
    """Takes a message out of Faust's account of acks, which looks at offsets and not at generations: acked by `take` with
    its chunk, it would let the next commit pass what this generation has yet to fetch anew."""
    message.acked = True
    consumer._unacked_messages.discard(message)


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
