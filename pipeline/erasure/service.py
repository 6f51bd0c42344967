"""The eraser as a thread of the API process. Of several API processes one erases at a time: the one that is given the only
partition of replay.erasures in a consumer group made for this. Were there two for a moment no harm is done: every step may be
made again, and beside another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

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
BACKOFF_MAX_S = 300.0

log = structlog.get_logger()


class EraserService:
    """`start` it, `wake` it when something was asked for, `stop` it: it ends between two steps."""

    def __init__(self, settings: Settings, store: BlobStore) -> None:
        self._settings, self._store = settings, store
        self._stuck: dict[str, float] = {}
        """Until when requests that wait for somebody are left alone, by id."""
        self._eraser: Eraser | None = None
        self._backoff_s = AFTER_ERROR_S
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
        )
        consumer.subscribe([catalogue(self._settings).erasures.name], on_assign=_take_without_reading)
        try:
            while not self._stop.is_set():
                wait_s = self._turn(consumer)
                self._woken.wait(wait_s)
                self._woken.clear()
        finally:
            self._drop()
            consumer.close()

    def _turn(self, consumer: Consumer) -> float:
        """One round if it is ours to make and anything is asked for; how long to wait afterwards."""

        def is_ours() -> bool:
            consumer.poll(0)
            return bool(consumer.assignment())

        try:
            if not is_ours():
                return IDLE_S
            done = self._round(is_ours)
        except StoppedError:
            return 0.0
        except ReplayError as error:
            self._put_off(str(error))
        except KafkaException as error:
            self._put_off(error.args[0].name())
        except Exception as error:
            self._put_off(type(error).__name__)  # its message may hold what was recorded
        else:
            self._backoff_s = AFTER_ERROR_S
            return 0.0 if done else IDLE_S
        wait_s, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, BACKOFF_MAX_S)
        return wait_s

    def _round(self, is_ours: Callable[[], bool]) -> int:
        if self._eraser is None:
            self._eraser = Eraser(self._settings, self._store, self._stop, is_ours=is_ours)
            self._eraser.tidy()
        now = time.monotonic()
        self._stuck = {each: until for each, until in self._stuck.items() if until > now}
        self._eraser.skip = self._stuck
        done = self._eraser.round()
        self._stuck |= dict.fromkeys(self._eraser.stuck, now + STUCK_S)
        return done

    def _put_off(self, why: str) -> None:
        """Says so where it is asked for, too; the next round begins with new clients."""
        log.warning("erasure_put_off", why=why)
        if self._eraser is not None:
            with suppress(ReplayError):
                self._eraser.say(why)
        self._drop()

    def _drop(self) -> None:
        if self._eraser is not None:
            self._eraser.close()
            self._eraser = None


def _take_without_reading(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    consumer.incremental_assign(partitions)
    consumer.pause(partitions)
