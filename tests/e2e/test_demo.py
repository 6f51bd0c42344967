"""`make demo`, twice on one home: it adds up to the event and says so."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.load import demo, traffic
from pipeline.load.recordings import bundled
from pipeline.local.parts import child_environ
from pipeline.local.ports import is_taken
from pipeline.settings import Settings
from tests.e2e.conftest import settings_for
from tests.support import eventually

RUN_LIMIT_S = 240


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_for(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def runs(settings: Settings) -> list[subprocess.CompletedProcess[str]]:
    return [
        subprocess.run(
            [sys.executable, "-m", "pipeline", "demo"],
            env=child_environ(settings) | {"COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
        for _ in range(2)
    ]


def test_it_succeeds_and_again_on_the_same_home(runs: list[subprocess.CompletedProcess[str]]) -> None:
    for run in runs:
        assert run.returncode == 0, run.stdout + run.stderr
        assert "✗" not in run.stdout


def test_it_accounts_for_every_event_that_was_sent(runs: list[subprocess.CompletedProcess[str]]) -> None:
    sent = traffic.expected(traffic.plan(bundled(), run_id="x", now_ms=1_800_000_000_000, copies=demo.COPIES))
    for run in runs:
        assert f"in {sent.sent:,} = stored " in run.stdout
        assert f"repeated {sent.repeated:,} + erased 0 + dead-lettered {sent.dead_lettered:,}" in run.stdout


def test_it_tells_freshness_and_where_to_look(runs: list[subprocess.CompletedProcess[str]]) -> None:
    for run in runs:
        assert "freshness, received to queryable: p50 " in run.stdout
        assert "replay show demo-" in run.stdout
        assert "zstd -dc " in run.stdout


def test_nothing_is_left_running(runs: list[subprocess.CompletedProcess[str]], settings: Settings) -> None:
    assert len(runs) == 2
    ports = (settings.capture_port, settings.api_port, settings.warehouse_port, settings.kafka_port)
    assert not any(is_taken(port) for port in ports)
    assert not (settings.home / "stack.json").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_ended_leaves_nothing_running(tmp_path: Path, how: signal.Signals) -> None:
    own = settings_for(tmp_path / "home")
    ports = (own.capture_port, own.api_port, own.warehouse_port, own.kafka_port)
    with (tmp_path / "demo.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "demo"], env=child_environ(own), stdout=log, stderr=log
        )
    try:
        eventually(lambda: all(is_taken(port) for port in ports), within_s=60, why="the stack runs")
    finally:
        running.send_signal(how)
    assert running.wait(30) != 0
    eventually(lambda: not any(is_taken(port) for port in ports), within_s=20, why="every port is free again")
