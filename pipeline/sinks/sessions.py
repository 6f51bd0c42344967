"""replay.sessions → tables `sessions` and `session_users`, in a thread of the warehouse sink.

A later revision replaces an earlier one (ReplacingMergeTree), so a repeat does no harm; what an erasure covers stays out.
"""

from __future__ import annotations

import os
import threading
import time

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.errors import PoisonError, ReplayError, RetryableError
from pipeline.model.batches import SessionUpdate
from pipeline.settings import Settings
from pipeline.sinks.rows import session_rows, user_rows
from pipeline.sinks.staging import Stage
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids

CONSUME_AT_ONCE = 5_000
GATHER_S = 0.5
STOP_LIMIT_S = 5.0
RETRY_S = 1.0

_NOT_ERASED = """
    NOT EXISTS (SELECT 1 FROM {db}.erasures) OR (tenant, session_id, revision) NOT IN (
        SELECT s.tenant, s.session_id, s.revision FROM {stage} AS s
        INNER JOIN {db}.erasures AS e ON e.tenant = s.tenant AND e.session_id = s.session_id
        WHERE s.revision < 2 * e.source_offset)
"""

log = structlog.get_logger()


class SessionReader:
    """Its own consumer, client and thread. A failure that cannot be retried ends the process: the supervisor starts it anew."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = catalogue(settings)
        self._codec = Codecs(self._topics, schema_ids(settings)).sessions
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sessions")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(STOP_LIMIT_S)

    def _run(self) -> None:
        consumer = clients.consumer(
            self._settings, group=f"{self._settings.sink_group}-sessions", client_id="replay-sink-sessions"
        )
        warehouse = ClickHouse(self._settings)
        stages = Stage(warehouse, "sessions"), Stage(warehouse, "session_users")
        try:
            consumer.subscribe([self._topics.sessions.name])
            while not self._stop.is_set():
                messages = [each for each in consumer.consume(CONSUME_AT_ONCE, GATHER_S) if self._is_news(each)]
                if messages:
                    self._store(messages, *stages)
                    self._commit(consumer)
        except ReplayError as error:
            log.error("session_reader_ends", why=str(error))
            os._exit(1)
        finally:
            consumer.close()
            warehouse.close()

    @staticmethod
    def _is_news(message: Message) -> bool:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            log.warning("consume_error", error=error.name())
        return error is None

    def _store(self, messages: list[Message], sessions: Stage, users: Stage) -> None:
        """The last update of each part goes in; retried until it does or we are told to stop."""
        last: dict[tuple[str, str, str], tuple[SessionUpdate, int]] = {}
        for message in messages:
            try:
                update: SessionUpdate = self._codec.decode(message.value())
            except PoisonError as error:
                log.error(
                    "session_update_unreadable",
                    partition=message.partition(),
                    offset=message.offset(),
                    why=error.reason,
                )
                continue
            key = (update.tenant, update.session_id, update.part)
            if key not in last or update.revision >= last[key][0].revision:
                last[key] = (update, message.timestamp()[1])
        updates = list(last.values())
        name = "-".join(
            str(each) for each in (messages[0].partition(), messages[0].offset(), len(messages), time.time_ns())
        )
        while not self._stop.is_set():
            try:
                sessions.insert(session_rows(updates), token=f"sessions-{name}", guard=_NOT_ERASED)
                users.insert(user_rows(updates), token=f"users-{name}", guard=_NOT_ERASED)
                return
            except RetryableError as error:
                log.warning("sessions_put_off", why=str(error))
                self._stop.wait(RETRY_S)
        raise RetryableError("stopped before the session updates went in: they are read again")

    def _commit(self, consumer) -> None:  # type: ignore[no-untyped-def]
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            log.warning("commit_failed", topic="sessions", error=error.args[0].name())
