"""The worker's own state topic: what a generation of the group loads, and which records win.

A record's key is `tenant:session_id \\0 generation`: the *generation* of the consumer group wrote it, so a worker that slept
through a rebalance cannot overwrite its successor's state. Per session the highest applied offset wins, then the highest
generation. `Folding` decides that; `load` reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.errors import FatalError
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import Catalogue
from pipeline.workers.keeping import Held, Sessions
from pipeline.workers.state import decode_state, is_marker

BROKER_TIMEOUT_S = 10.0
LOAD_LIMIT_S = 120.0
LOAD_AT_ONCE = 2_000
LOAD_WAIT_S = 0.05
"""Short: a consume waits its whole time-out at the end of the topic."""

SessionKey = tuple[str, str]


def state_key(session: bytes, generation: int) -> bytes:
    return session + b"\0" + str(generation).encode()


def split_key(key: bytes) -> tuple[bytes, int]:
    """Raises FatalError where it is no key of ours."""
    session, _, generation = key.rpartition(b"\0")
    if not session or not generation.isdigit():
        raise FatalError("replay.state holds a record that no worker wrote: only workers may write there")
    return session, int(generation)


class Folding:
    """One partition of the state topic while it is read: the last value of each key, then the winner of each session.

    Markers of released sessions, of which there may be very many, go straight to `sessions`; what lost to them stays in the
    topic until its retention ends.
    """

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.losers: list[bytes] = []
        self.newest_generation = -1
        self._last: dict[bytes, bytes] = {}

    def take(self, key: bytes, value: bytes | None) -> None:
        """One record, in the topic's order; a tombstone takes its key out."""
        session, generation = split_key(key)
        if value is None:
            self._last.pop(key, None)
            return
        self.newest_generation = max(self.newest_generation, generation)
        if is_marker(value):
            self._last.pop(key, None)
            self.sessions.put(session, Held(decode_state(value), generation))
        else:
            self._last[key] = value

    def end(self) -> Folding:
        """All is read. Only losers of a generation below the winner's may be tombstoned: a younger one may belong to a
        worker still writing."""
        candidates: dict[bytes, list[Held]] = {}
        for key, value in self._last.items():
            session, generation = split_key(key)
            candidates.setdefault(session, []).append(Held(decode_state(value), generation))
        self._last.clear()
        for session, held in candidates.items():
            marker = self.sessions.marker(session)
            best = max([*held, marker] if marker else held, key=lambda each: (each.state.applied, each.generation))
            if best is not marker:
                self.sessions.put(session, best)
            self.losers += [state_key(session, each.generation) for each in held if each.generation < best.generation]
        return self


@dataclass
class Partition:
    """One assigned partition of one generation: the next source offset to process, and its sessions."""

    next_offset: int
    sessions: Sessions
    losers: list[bytes] = field(default_factory=list)


def load(settings: Settings, topics: Catalogue, generation: int, partitions: list[int]) -> dict[int, Partition]:
    """FIRST the committed offsets, THEN the state topic to its end: commits are fenced by generation, so whatever a
    committed offset relies on is already in the state topic. Blocks; raises FatalError where a younger generation has written.
    """
    reader = clients.consumer(settings, group=settings.worker_group, client_id="replay-worker-state")
    try:
        raw = [TopicPartition(topics.batches.name, each) for each in partitions]
        committed = {each.partition: each.offset for each in reader.committed(raw, timeout=BROKER_TIMEOUT_S)}
        foldings = _read_state(reader, topics.state.name, partitions)
    except KafkaException as error:
        raise FatalError(f"the worker's state cannot be loaded ({error.args[0].name()})") from error
    finally:
        reader.close()
    loaded = {}
    for each in partitions:
        folded = foldings[each].end()
        if folded.newest_generation > generation:
            raise FatalError(
                f"partition {each}: generation {folded.newest_generation} has written state, we are {generation}: "
                "we slept through a rebalance (or the group was deleted: then delete the state topic as well)"
            )
        loaded[each] = Partition(max(committed[each], 0), folded.sessions, folded.losers)
    return loaded


def log_start(settings: Settings, topics: Catalogue, partition: int) -> int:
    """The first offset that replay.batches still holds. Blocks."""
    reader = clients.consumer(settings, group=settings.worker_group, client_id="replay-worker-log-start")
    try:
        where = TopicPartition(topics.batches.name, partition)
        return int(reader.get_watermark_offsets(where, timeout=BROKER_TIMEOUT_S)[0])
    except KafkaException as error:
        raise FatalError(f"the log's start cannot be asked for ({error.args[0].name()})") from error
    finally:
        reader.close()


def _read_state(reader: Consumer, topic: str, partitions: list[int]) -> dict[int, Folding]:
    """All records of these partitions, taken in."""
    foldings = {each: Folding() for each in partitions}
    left = set(partitions)
    until = time.monotonic() + LOAD_LIMIT_S
    reader.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
    while left:
        for message in reader.consume(LOAD_AT_ONCE, LOAD_WAIT_S):
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                left.discard(message.partition())
                continue
            key, value, partition = message.key(), message.value(), message.partition()
            if key is None or partition is None:
                raise FatalError(f"{topic} holds a record without a key: only workers may write there")
            foldings[partition].take(key, value)
        if time.monotonic() > until:
            raise FatalError(f"{topic} was not read to its end within {LOAD_LIMIT_S:.0f} s")
    return foldings
