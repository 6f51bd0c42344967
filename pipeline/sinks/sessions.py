"""replay.sessions → tables `sessions` and `session_users`, in a thread of the warehouse sink.

A later revision replaces an earlier one (ReplacingMergeTree), so a repeat does no harm; what an erasure covers stays out.
"""

from __future__ import annotations

import os
import threading
import time

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.errors import FatalError, PoisonError, ReplayError, RetryableError
from pipeline.model.batches import SessionUpdate
from pipeline.settings import Settings
from pipeline.sinks.rows import session_rows, user_rows
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.staging import Stage
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
        self._thread = threading.Thread(target=self._run, name="sessions", daemon=True)

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
                if messages and self._store(messages, *stages):
                    self._commit(consumer, messages)
        except ReplayError as error:
            log.error("session_reader_ends", why=str(error))
            os._exit(1)
        except Exception as error:
            # A thread that died in silence would leave the sink running without sessions. Its message may hold values.
            log.error("session_reader_ends", why=type(error).__name__)
            os._exit(1)
        finally:
            consumer.close()
            warehouse.close()

    @staticmethod
    def _is_news(message: Message) -> bool:
        error = message.error()
        if error is not None and error.fatal():
            raise FatalError(f"the consumer cannot go on: {error.name()}")
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            log.warning("consume_error", error=error.name())
        return error is None

    def _decode(self, message: Message) -> SessionUpdate:
        try:
            update: SessionUpdate = self._codec.decode(message.value())
            return update
        except PoisonError as poison:
            raise FatalError(
                f"{message.topic()} partition {message.partition()} offset {message.offset()} is not a session update "
                f"({poison}): only workers may write there"
            ) from poison

    def _store(self, messages: list[Message], sessions: Stage, users: Stage) -> bool:
        """The last update of each part goes in, and every user a session ever had; retried until they do (True) or we
        are told to stop.

        Raises FatalError, naming the place, where a message is no session update.
        """
        last: dict[tuple[str, str, str], tuple[SessionUpdate, int]] = {}
        last_of_user: dict[tuple[str, str, str], tuple[SessionUpdate, int]] = {}
        for message in messages:
            update = self._decode(message)
            for newest, name in ((last, update.part), (last_of_user, update.user_id)):
                key = (update.tenant, update.session_id, name)
                if key not in newest or update.revision >= newest[key][0].revision:
                    newest[key] = (update, message.timestamp()[1])
        token = "-".join(
            str(each) for each in (messages[0].partition(), messages[0].offset(), len(messages), time.time_ns())
        )
        while not self._stop.is_set():
            try:
                sessions.insert(session_rows(last.values()), token=f"sessions-{token}", guard=_NOT_ERASED)
                users.insert(user_rows(last_of_user.values()), token=f"users-{token}", guard=_NOT_ERASED)
                return True
            except RetryableError as error:
                log.warning("sessions_put_off", why=str(error))
                self._stop.wait(RETRY_S)
        return False

    def _commit(self, consumer: Consumer, messages: list[Message]) -> None:
        """What is in is not read again. Explicit offsets: nothing is stored with the consumer for it to commit."""
        after: dict[int, int] = {}
        for message in messages:
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            after[partition] = max(offset + 1, after.get(partition, 0))
        places = [TopicPartition(self._topics.sessions.name, number, offset) for number, offset in after.items()]
        try:
            consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            log.warning("commit_failed", topic="sessions", error=error.args[0].name())
