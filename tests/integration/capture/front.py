"""A running `replay capture` with topics of its own, and what stands on replay.batches behind it."""

from __future__ import annotations

import dataclasses
import functools
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline import settings as settings_table
from pipeline.keys import KeyFile
from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports
from pipeline.model.batches import RecorderBatch
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from tests.support import eventually

NOW = 1_795_448_983_032
START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0
READ_LIMIT_S = 20.0


@dataclasses.dataclass(frozen=True)
class Record:
    """One record of replay.batches."""

    partition: int
    key: bytes
    batch: RecorderBatch


@dataclasses.dataclass(frozen=True)
class Front:
    """The server's address and log, its write key, and its process."""

    settings: Settings
    key: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.capture_port}"

    def post(self, path: str, content: Any, *, timeout_s: float = 30.0, **headers: str) -> httpx.Response:
        sent = {
            "Authorization": f"Bearer {self.key}",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        return httpx.post(self.url + path, content=content, headers=sent, timeout=timeout_s)

    def status(self, path: str) -> int:
        return httpx.get(self.url + path, timeout=10).status_code


def own_topics(kafka_port: int, home: Path, **more: Any) -> Settings:
    """Settings of a home, a port and topics of its own, which are made."""
    (port,) = free_ports(1)
    settings = dataclasses.replace(
        settings_table.load({}),
        home=home,
        cache=settings_table.load().cache,
        kafka_port=kafka_port,
        capture_port=port,
        topic_prefix=f"t{secrets.token_hex(4)}.",
        **more,
    )
    clients.apply(clients.admin(settings), catalogue(settings))
    return settings


@contextmanager
def running(settings: Settings) -> Iterator[Front]:
    """`replay capture` until the block ends."""
    key = KeyFile(settings.keys).ensure().write
    log = settings.home / "capture.log"
    child = process.start([sys.executable, "-m", "pipeline", "capture"], child_environ(settings), log)
    front = Front(settings, key, log, child)

    def ready() -> bool:
        assert child.poll() is None, log.read_text()[-2000:]
        try:
            return front.status("/readyz") == 200
        except httpx.TransportError:
            return False

    try:
        eventually(ready, within_s=START_LIMIT_S, why="capture is ready")
        yield front
    finally:
        child.terminate()
        try:
            child.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def on_topic(settings: Settings, session_id: str | None = None) -> list[Record]:
    """What replay.batches holds now, of one session or all, in order within each partition."""
    topics = catalogue(settings)
    name = topics.batches.name
    decode = Codecs(topics, schema_ids(settings)).batches.decode
    consumer = clients.consumer(settings, group=f"test-{secrets.token_hex(4)}", client_id="test")
    try:
        left = {}
        for number in range(settings.topic_partitions):
            where = TopicPartition(name, number)
            first, end = eventually(
                functools.partial(_watermarks, consumer, where),
                within_s=READ_LIMIT_S,
                why=f"the broker tells where {name} partition {number} ends",
            )
            if end > first:
                left[number] = end
        consumer.assign([TopicPartition(name, number, 0) for number in left])
        records = []
        while left:
            message = consumer.poll(READ_LIMIT_S)
            assert message is not None, f"still unread: {left}"
            if message.error():
                continue
            if message.offset() + 1 >= left.get(message.partition(), 0):
                left.pop(message.partition(), None)
            records.append(Record(message.partition(), message.key(), decode(message.value())))
    finally:
        consumer.close()
    return [each for each in records if session_id is None or each.batch.session_id == session_id]


def _watermarks(consumer: Consumer, where: TopicPartition) -> tuple[int, int] | None:
    """None while the broker does not know the partition's leader: for a moment after it was frozen longer than its own
    session with the controller, it answers for the partitions that it has found again only."""
    try:
        return consumer.get_watermark_offsets(where, timeout=READ_LIMIT_S)  # type: ignore[no-any-return]
    except KafkaException as error:
        if error.args[0].code() in (KafkaError._UNKNOWN_PARTITION, KafkaError.LEADER_NOT_AVAILABLE):
            return None
        raise


def click(at: int, text: str = "Buy") -> dict[str, Any]:
    return {"type": "click", "timestamp": at, "data": {"x": 1, "y": 2.5, "text": text}}


def a_batch(session_id: str, batch_id: str = "b1", events: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "batchId": batch_id,
        "sessionId": session_id,
        "sentAt": NOW + 500,
        "events": [click(NOW + index) for index in range(events)],
        **more,
    }
