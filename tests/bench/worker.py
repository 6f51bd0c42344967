"""One worker process against a bare confluent-kafka loop that runs the same chain, on the same batches and broker.

The bare loop is the fastest thing that does the work and promises nothing: no state topic, no commits, no waiting for acks
before the end. A rate is counted between the first and the last clean record on the broker, so start-up is left out.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from pipeline import settings as settings_table
from pipeline.load import traffic
from pipeline.load.recordings import bundled
from pipeline.load.senders import recorder_batch
from pipeline.local import kafka, process
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports
from pipeline.model.batches import RecorderBatch, session_key
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from pipeline.workers.outputs import Outputs
from pipeline.workers.reference import RawRecord
from pipeline.workers.reference import process as through_chain
from pipeline.workers.rules import rules
from pipeline.workers.state import SessionState
from tests.bench.rounds import interleaved, tell

COPIES = {"conforming": 200, "hostile": 16}
LIMIT_S = 180.0
CONSUME_AT_ONCE = 500
LOOK_EVERY_S = 0.01


def main() -> None:
    with _broker() as settings:
        for name, copies in COPIES.items():
            found = batches(hostile=name == "hostile", copies=copies)
            events = sum(batch.event_count for batch in found)
            print(f"{name} recordings: {len(found):,} batches, {events:,} events", flush=True)
            sides = {
                "bare loop": lambda found=found: _rate(settings, found, "tests.bench.worker"),
                "replay worker": lambda found=found: _rate(settings, found, "pipeline", "worker"),
            }
            tell(interleaved(sides), baseline="bare loop", unit="events/s")


def batches(*, hostile: bool, copies: int) -> list[RecorderBatch]:
    """The bundled recordings of one kind, in batches of 100 events, `copies` sessions of each."""
    bundle = [each for each in bundled() if each.hostile is hostile]
    plan = traffic.plan(bundle, run_id="bench", now_ms=time.time_ns() // 1_000_000, copies=copies)
    return [recorder_batch(each, "bench") for each in plan if each.events and not each.repeat]


def _rate(settings: Settings, batches: list[RecorderBatch], *module: str) -> float:
    """Events a second of one run in a process of its own, over topics of its own."""
    word = secrets.token_hex(4)
    own = dataclasses.replace(settings, topic_prefix=f"{word}.", worker_group=word)
    topics = catalogue(own)
    clients.apply(clients.admin(own), topics)
    _produce(own, batches)
    running = subprocess.Popen(
        [sys.executable, "-m", *module], env=child_environ(own), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return _watch(own, batches)
    finally:
        running.terminate()
        running.wait(15)


def _produce(settings: Settings, batches: list[RecorderBatch]) -> None:
    topics = catalogue(settings)
    encode = Codecs(topics, schema_ids(settings)).batches.encode
    producer = clients.producer(settings, client_id="replay-bench")
    for batch in batches:
        while True:
            try:
                producer.produce(topics.batches.name, encode(batch), session_key(batch.tenant, batch.session_id))
                break
            except BufferError:
                producer.poll(0.5)
    assert producer.flush(LIMIT_S) == 0


def _watch(settings: Settings, batches: list[RecorderBatch]) -> float:
    """Follows the high watermarks of replay.clean from the first record to the last."""
    topic = catalogue(settings).clean
    reader = clients.consumer(settings, group="bench-watch", client_id="replay-bench-watch")
    each_event = sum(batch.event_count for batch in batches) / len(batches)
    until = time.monotonic() + LIMIT_S
    first: tuple[float, int] | None = None
    try:
        while time.monotonic() < until:
            now = time.monotonic()
            seen = sum(
                reader.get_watermark_offsets(TopicPartition(topic.name, partition), timeout=10)[1]
                for partition in range(topic.partitions)
            )
            if seen and first is None:
                first = (now, seen)
            if first and seen >= len(batches):
                return (seen - first[1]) * each_event / (now - first[0])
            time.sleep(LOOK_EVERY_S)
    finally:
        reader.close()
    raise TimeoutError(f"{len(batches)} batches did not come through within {LIMIT_S:.0f} s")


def bare_loop() -> None:
    """The baseline: consume, the same chain, produce. Ends when it is told to."""
    settings = settings_table.load()
    topics = catalogue(settings)
    codecs = Codecs(topics, schema_ids(settings))
    ours, outputs = rules(settings), Outputs(settings, topics, codecs)
    states: dict[int, dict[tuple[str, str], SessionState]] = {each: {} for each in range(topics.batches.partitions)}
    reader = clients.consumer(settings, group="bench-bare", client_id="replay-bench-bare")
    reader.assign([TopicPartition(topics.batches.name, each, OFFSET_BEGINNING) for each in states])
    while True:
        for message in reader.consume(CONSUME_AT_ONCE, 0.1):
            if message.error() is not None:
                continue
            partition, at_ms = message.partition(), message.timestamp()[1]
            record = RawRecord(topics.batches.name, partition, message.offset(), at_ms, message.key(), message.value())
            outcome = through_chain(record, states[partition], codecs.batches, ours)
            if outcome.state is not None:
                states[partition][outcome.state.tenant, outcome.state.session_id] = outcome.state
            outputs.clean(outcome.clean, message.key())
            for update in outcome.sessions:
                outputs.session(update, at_ms)


@contextmanager
def _broker() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as folder:
        (port,) = free_ports(1)
        settings = dataclasses.replace(settings_table.load(), home=Path(folder) / "home", kafka_port=port)
        running = process.start(kafka.prepare(settings), dict(os.environ), Path(folder) / "kafka.log")
        try:
            until = time.monotonic() + 60
            while not kafka.answers(settings):
                if time.monotonic() > until:
                    raise TimeoutError("the broker does not answer")
                time.sleep(0.1)
            yield settings
        finally:
            running.terminate()
            running.wait(15)


if __name__ == "__main__":
    bare_loop()
