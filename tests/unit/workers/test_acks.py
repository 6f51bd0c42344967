"""What Faust may commit: never past a message of an older generation that was only skipped."""

from __future__ import annotations

from faust.types.tuples import ConsumerMessage

from pipeline.workers.app import leave_unacked


class Consumer:
    """Faust's side of an ack, as far as a message calls it."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self._unacked_messages: set[ConsumerMessage] = set()

    def ack(self, message: ConsumerMessage) -> bool:
        self.acked.append(message.offset)
        return True


def message(offset: int) -> ConsumerMessage:
    return ConsumerMessage("replay.batches", 0, offset, 0.0, 1, None, None, b"", None)


def test_a_skipped_message_is_not_acked_when_its_chunk_ends() -> None:
    consumer = Consumer()
    skipped, done = message(100), message(101)
    for each in (skipped, done):
        each.refcount = 1
        consumer._unacked_messages.add(each)
    leave_unacked(consumer, skipped)
    for each in (skipped, done):
        each.ack(consumer)
    assert consumer.acked == [101]
    assert skipped not in consumer._unacked_messages
