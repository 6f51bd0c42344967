"""replay.dead_letters for its operator: what lies there, one letter whole, back to where it came from, gone.

A letter is named by its offset (the topic has one partition). It holds the raw bytes as they were sent, so the topic is to be
read by operators only, and its retention is short; nothing here prints them unless asked for a file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.errors import MalformedError, NotFoundError, RetryableError
from pipeline.model.batches import DeadLetter
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import Topic, catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids

PARTITION = 0
READ_AT_ONCE = 100
READ_WAIT_S = 0.2
READ_LIMIT_S = 60.0
BROKER_TIMEOUT_S = 5.0
FLUSH_LIMIT_S = 30.0


@dataclass(frozen=True)
class Letter:
    """One dead letter and its offset in replay.dead_letters."""

    offset: int
    letter: DeadLetter


def letters(settings: Settings, *, reason: str | None = None) -> Iterator[Letter]:
    """All letters from the oldest to the newest as of now, or those of one reason. Raises RetryableError."""
    topics = catalogue(settings)
    decode = Codecs(topics, schema_ids(settings)).dead_letters.decode
    for message in _read(settings, topics.dead_letters):
        found = Letter(message.offset() or 0, decode(message.value()))
        if reason is None or found.letter.reason == reason:
            yield found


def letter(settings: Settings, offset: int) -> Letter:
    """The letter at an offset. Raises NotFoundError."""
    for found in letters(settings):
        if found.offset == offset:
            return found
    raise NotFoundError(f"there is no dead letter at offset {offset}: retention may have removed it")


def retry(settings: Settings, chosen: Iterable[Letter]) -> int:
    """Puts the worker's letters onto replay.batches again, under their own key, and returns how many once all are acked.

    At least once: a batch that had arrived after all is a repeat by its batch id and is dropped and counted. The letters
    stay until they are purged or their retention ends. Raises MalformedError for a letter that is not the worker's.
    """
    topics = catalogue(settings)
    producer = clients.producer(settings, client_id="replay-dead-letters")
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error.name())

    count = 0
    for each in chosen:
        if each.letter.stage != "worker":
            raise MalformedError(
                f"the letter at offset {each.offset} is the {each.letter.stage} sink's, not the worker's"
            )
        _put(producer, topics.batches.name, each.letter, delivered)
        count += 1
    left = producer.flush(FLUSH_LIMIT_S)
    if left or failed:
        raise RetryableError(
            f"{left + len(failed)} of {count} letters were not acked ({', '.join(sorted(set(failed)))})"
        )
    return count


def purge(settings: Settings, *, through: int | None = None) -> int:
    """Deletes the letters up to offset `through`, or all of now. Returns the offset of the oldest letter kept.

    The broker removes them from its log at once for every reader, from its disk with the segment.
    """
    topic = catalogue(settings).dead_letters
    newest = _end(settings, topic)
    end = newest if through is None else min(through + 1, newest)
    where = TopicPartition(topic.name, PARTITION, end)
    client = clients.admin(settings)  # its futures never end where it is gone before them
    try:
        done = client.delete_records([where], request_timeout=BROKER_TIMEOUT_S)[where]
        return int(done.result(2 * BROKER_TIMEOUT_S).low_watermark)
    except KafkaException as error:
        raise RetryableError(f"{topic.name} could not be purged ({error.args[0].name()})") from error


def _put(producer, topic: str, dead: DeadLetter, delivered) -> None:  # type: ignore[no-untyped-def]
    while True:
        try:
            producer.produce(topic, dead.value, dead.key, on_delivery=delivered)
            return
        except BufferError:  # the queue is full: push back until the broker has taken some
            producer.poll(READ_WAIT_S)


def _end(settings: Settings, topic: Topic) -> int:
    reader = _reader(settings)
    try:
        where = TopicPartition(topic.name, PARTITION)
        return int(reader.get_watermark_offsets(where, timeout=BROKER_TIMEOUT_S)[1])
    except KafkaException as error:
        raise RetryableError(
            f"no broker answers at {settings.kafka} ({error.args[0].name()}): start one with `replay up`, or name it with "
            "REPLAY_KAFKA_BROKERS"
        ) from error
    finally:
        reader.close()


def _reader(settings: Settings) -> Consumer:
    return clients.consumer(settings, group="replay-dead-letters", client_id="replay-dead-letters")


def _read(settings: Settings, topic: Topic) -> Iterator[Message]:
    _end(settings, topic)  # says at once where no broker answers
    reader = _reader(settings)
    until = time.monotonic() + READ_LIMIT_S
    try:
        reader.assign([TopicPartition(topic.name, PARTITION, OFFSET_BEGINNING)])
        while True:
            for message in reader.consume(READ_AT_ONCE, READ_WAIT_S):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
            if time.monotonic() > until:
                raise RetryableError(f"{topic.name} was not read to its end within {READ_LIMIT_S:.0f} s")
    finally:
        reader.close()
