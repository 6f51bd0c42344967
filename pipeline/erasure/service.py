"""The eraser as a thread of the API process. Of several API processes one erases at a time: the one that is given the only
partition of replay.erasures in a consumer group made for this. Were there two for a moment no harm is done: every step may be
made again, and beside another.
"""

from __future__ import annotations

import threading
import time

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.erasure.eraser import Eraser, StoppedError
from pipeline.errors import ReplayError
from pipeline.settings import Settings
from pipeline.storage.blobs import BlobStore
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue

IDLE_S = 2.0
AFTER_ERROR_S = 5.0
STUCK_S = 300.0
STOP_LIMIT_S = 5.0
LEASE_LOST_AFTER_MS = 900_000
"""A round may take long; a process that is gone is told by its heartbeats, which do not wait for the round."""

log = structlog.get_logger()


class EraserService:
    """`start` it, `wake` it when something was asked for, `stop` it: it ends between two steps."""

    def __init__(self, settings: Settings, store: BlobStore) -> None:
        self._settings, self._store = settings, store
        self._stuck: dict[str, float] = {}
        """Until when requests that wait for somebody are left alone, by id."""
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eraser", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self._stop.set()
        self._woken.set()
        self._thread.join(STOP_LIMIT_S)

    def _run(self) -> None:
        consumer = clients.consumer(
            self._settings,
            group=f"{self._settings.sink_group}-eraser",
            client_id="replay-eraser",
            **{"max.poll.interval.ms": LEASE_LOST_AFTER_MS},
        )
        consumer.subscribe([catalogue(self._settings).erasures.name], on_assign=_take_without_reading)
        try:
            while not self._stop.is_set():
                wait_s = self._turn(consumer)
                self._woken.wait(wait_s)
                self._woken.clear()
        finally:
            consumer.close()

    def _turn(self, consumer: Consumer) -> float:
        """One round if it is ours to make and anything is asked for; how long to wait afterwards."""
        try:
            consumer.poll(0)
            if not consumer.assignment():
                return IDLE_S
            now = time.monotonic()
            self._stuck = {each: until for each, until in self._stuck.items() if until > now}
            eraser = Eraser(self._settings, self._store, self._stop, skip=self._stuck)
            try:
                done = eraser.round()
                self._stuck |= dict.fromkeys(eraser.stuck, now + STUCK_S)
                return 0.0 if done else IDLE_S
            finally:
                eraser.close()
        except StoppedError:
            return 0.0
        except ReplayError as error:
            log.warning("erasure_put_off", why=str(error))
        except KafkaException as error:
            log.warning("erasure_put_off", why=error.args[0].name())
        except Exception as error:
            log.error("erasure_put_off", why=type(error).__name__)  # its message may hold what was recorded
        return AFTER_ERROR_S


def _take_without_reading(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    consumer.incremental_assign(partitions)
    consumer.pause(partitions)
