"""Without Kafka's ack there is no 200; what was answered 200 outlives the server's end."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.local import kafka, process
from pipeline.local.ports import free_ports
from pipeline.settings import Settings
from pipeline.settings import load as load_settings
from tests.integration.capture.front import STOP_LIMIT_S, Front, a_batch, on_topic, own_topics, running
from tests.support import eventually

ACK_TIMEOUT_MS = 2_000
SLACK_S = 3.0
BROKER_LIMIT_S = 60.0


@dataclasses.dataclass(frozen=True)
class OwnBroker:
    process: subprocess.Popen[bytes]
    port: int

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    """A broker that a test may stop."""
    home = tmp_path_factory.mktemp("away")
    settings = dataclasses.replace(load_settings(), home=home, kafka_port=free_ports(1)[0])
    started = process.start(kafka.prepare(settings, quiet=True), dict(os.environ), home / "kafka.log")
    broker = OwnBroker(started, settings.kafka_port)
    try:
        eventually(lambda: kafka.answers(settings), within_s=BROKER_LIMIT_S, why="the broker answers")
        yield broker
    finally:
        broker.thaw()
        started.kill()
        started.wait()


@pytest.fixture
def away(own_broker: OwnBroker, tmp_path: Path) -> Iterator[Front]:
    with running(own_topics(own_broker.port, tmp_path, ack_timeout_ms=ACK_TIMEOUT_MS)) as front:
        try:
            yield front
        finally:
            own_broker.thaw()


def send(front: Front, session: str, batch_id: str = "b1") -> httpx.Response:
    return front.post("/v1/batches", json.dumps(a_batch(session, batch_id)))


def test_while_kafka_is_silent_the_answer_is_503_in_time_and_200_once_it_is_back(
    own_broker: OwnBroker, away: Front
) -> None:
    assert send(away, "before").status_code == 200
    own_broker.freeze()
    for number in range(2):
        began = time.monotonic()
        answer = send(away, "during", f"b{number}")
        assert time.monotonic() - began < ACK_TIMEOUT_MS / 1000 + SLACK_S
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:portable-replay:problem:unavailable"
    assert away.status("/readyz") == 503
    assert away.status("/healthz") == 200
    assert httpx.post(f"{away.url}/v1/batches", content=b"{}").status_code == 401

    own_broker.thaw()
    eventually(lambda: away.status("/readyz") == 200, within_s=30, why="capture is ready again")
    eventually(lambda: send(away, "after").status_code == 200, within_s=30, why="a batch is accepted again")
    assert on_topic(away.settings, "after")
    assert len(on_topic(away.settings, "before")) == 1


def test_many_requests_at_once_are_each_answered_while_kafka_is_silent(own_broker: OwnBroker, away: Front) -> None:
    own_broker.freeze()
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda number=number: answers.append(send(away, f"s{number}").status_code))
        for number in range(20)
    ]
    began = time.monotonic()
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert answers == [503] * len(threads)
    assert time.monotonic() - began < ACK_TIMEOUT_MS / 1000 + 2 * SLACK_S


def test_what_was_answered_200_before_sigterm_ended_the_server_is_on_the_topic(
    broker: Settings, tmp_path: Path
) -> None:
    settings = own_topics(broker.kafka_port, tmp_path)
    accepted: list[str] = []
    enough, ended = threading.Event(), threading.Event()

    with running(settings) as front:

        def keep_sending() -> None:
            headers = {"Authorization": f"Bearer {front.key}"}
            with httpx.Client(headers=headers, timeout=20) as client:
                while not ended.is_set():
                    session = f"s-{secrets.token_hex(6)}"
                    try:
                        answer = client.post(f"{front.url}/v1/batches", content=json.dumps(a_batch(session)))
                    except httpx.TransportError:
                        return
                    assert answer.status_code in (200, 503)
                    if answer.status_code == 200:
                        accepted.append(session)
                    if len(accepted) >= 40:
                        enough.set()

        threads = [threading.Thread(target=keep_sending) for _ in range(4)]
        for each in threads:
            each.start()
        assert enough.wait(30)
        front.process.send_signal(signal.SIGTERM)
        assert front.process.wait(STOP_LIMIT_S) == 0
        ended.set()
        for each in threads:
            each.join(30)
    on_it = [each.batch.session_id for each in on_topic(settings)]
    assert set(accepted) <= set(on_it)
    assert len(set(on_it)) == len(on_it)
