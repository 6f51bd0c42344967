"""A real worker on a topic full of what it cannot read."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.load.arrivals import read_topic
from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.settings import Settings
from pipeline.topics import clients, dead_letters
from pipeline.topics.catalogue import catalogue
from tests.support import eventually

UNREADABLE = 60
ALLOWED = 20
LIMIT_S = 60.0


@contextmanager
def worker(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    running = process.start([sys.executable, "-m", "pipeline", "worker"], child_environ(settings), log)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(20)


def told(log: Path) -> set[str]:
    return {json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")}


def test_the_line_stops_before_a_whole_topic_is_dead_letters(with_topics: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(with_topics, dead_letters_in_a_row_max=ALLOWED)
    topics = catalogue(settings)
    producer = clients.producer(settings, client_id="test")
    for number in range(UNREADABLE):
        producer.produce(topics.batches.name, f"not Avro {number}".encode(), b"acme:s1", 0)
    assert producer.flush(30) == 0

    log = tmp_path / "worker.log"
    with worker(settings, log) as running:
        eventually(lambda: "worker_paused" in told(log), within_s=LIMIT_S, why="the worker pauses")
        assert running.poll() is None
        written = [each.letter.source_offset for each in dead_letters.letters(settings)]
        assert written == list(range(ALLOWED))

    unlimited = dataclasses.replace(settings, dead_letters_in_a_row_max=0)
    with worker(unlimited, tmp_path / "again.log"):
        eventually(
            lambda: len(list(read_topic(settings, topics.clean))) >= UNREADABLE,
            within_s=LIMIT_S,
            why="all went through",
        )
    offsets = {each.letter.source_offset for each in dead_letters.letters(settings)}
    assert offsets == set(range(UNREADABLE))
