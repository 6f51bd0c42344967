"""The real `replay up`: what it says, what it refuses, how it stops, and what outlives a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from pipeline import settings as settings_table
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports, is_taken
from pipeline.local.stack import Stack
from pipeline.settings import Settings
from tests.support import eventually

STOP_LIMIT_S = 10.0
PARTS = {"supervisor", "kafka", "warehouse", "worker", "sink-warehouse", "sink-objects", "capture", "api"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the file; the tests at its end stop it, kill it and start it again."""
    capture, api, warehouse, kafka = free_ports(4)
    settings = dataclasses.replace(
        settings_table.load(),
        home=tmp_path_factory.mktemp("stack"),
        capture_port=capture,
        api_port=api,
        warehouse_port=warehouse,
        kafka_port=kafka,
    )
    with Stack(settings) as running:
        yield running


def replay(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        env=child_environ(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def family(stack: Stack) -> list[int]:
    """The supervisor and all below it, the guard and parts' own children included."""
    supervisor = stack.pid("supervisor")
    assert supervisor is not None
    return [supervisor, *(child.pid for child in psutil.Process(supervisor).children(recursive=True))]


def send(stack: Stack, session: str, key: str | None = None) -> httpx.Response:
    now = int(time.time() * 1000)
    event = {"type": "click", "timestamp": now, "data": {"x": 1, "y": 2, "target": "b", "text": "t", "tagName": "B"}}
    key = key or json.loads(replay(stack.settings, "keys", "--json").stdout)["write"]
    return httpx.post(
        f"http://127.0.0.1:{stack.settings.capture_port}/v1/batches",
        headers={"authorization": f"Bearer {key}"},
        json={"batchId": f"{session}-1", "sessionId": session, "sentAt": now, "events": [event],
              "metadata": {"userAgent": "ua", "viewport": {"width": 8, "height": 6}, "url": "http://shop.example.test/"}},
        timeout=30,
    )  # fmt: skip


def stored(stack: Stack, session: str) -> int:
    answer = httpx.post(
        f"http://127.0.0.1:{stack.settings.warehouse_port}/",
        params={"param_session": session, "database": stack.settings.warehouse_database},
        content="SELECT count() FROM events WHERE session_id = {session:String}",
        timeout=30,
    )
    return int(answer.raise_for_status().text)


def start_again(stack: Stack) -> None:
    stack.start()
    stack.wait_ready()


def test_status_as_json_is_an_array_of_name_pid_ready_and_address(stack: Stack) -> None:
    done = replay(stack.settings, "status", "--json")
    assert done.returncode == 0
    rows = json.loads(done.stdout)
    assert {row["name"] for row in rows} == PARTS
    assert all(set(row) == {"name", "pid", "ready", "address"} for row in rows)
    assert all(row["ready"] is True and psutil.pid_exists(row["pid"]) for row in rows)
    addresses = {row["name"]: row["address"] for row in rows}
    assert addresses["capture"] == f"http://127.0.0.1:{stack.settings.capture_port}"
    assert addresses["kafka"] == f"127.0.0.1:{stack.settings.kafka_port}"


def test_keys_as_json_are_random_ones_of_the_default_tenant_in_a_private_file(stack: Stack) -> None:
    found = json.loads(replay(stack.settings, "keys", "--json").stdout)
    assert set(found) == {"tenant", "write", "read", "admin"}
    assert len({found["write"], found["read"], found["admin"]}) == 3
    assert stack.settings.keys.stat().st_mode & 0o077 == 0


def test_a_brought_key_is_honoured_when_the_command_returns(stack: Stack) -> None:
    assert send(stack, "brought", "phc_brought_by_a_test").status_code == 401
    assert replay(stack.settings, "keys", "add", "--write", "phc_brought_by_a_test").returncode == 0
    assert send(stack, "brought", "phc_brought_by_a_test").status_code == 200


def test_quiet_says_nothing_where_nothing_is_wrong(stack: Stack) -> None:
    assert stack.log.read_text() == ""


def test_a_second_up_on_the_same_home_is_refused_and_the_first_goes_on(stack: Stack) -> None:
    before = stack.status()
    done = replay(stack.settings, "up")
    assert done.returncode == 1
    assert done.stderr.startswith(f"replay: a stack already runs in {stack.settings.home} (pid {before[0].pid})")
    assert "REPLAY_HOME" in done.stderr
    assert stack.status() == before


def test_ports_in_use_are_named_with_the_settings_that_move_them(stack: Stack, home: Settings) -> None:
    taken = dataclasses.replace(
        stack.settings, home=home.home, warehouse_port=free_ports(1)[0], capture_port=free_ports(1)[0]
    )
    done = replay(taken, "up")
    assert done.returncode == 1
    assert f"port {taken.kafka_port} for kafka is in use (REPLAY_KAFKA_PORT moves it)" in done.stderr
    assert f"port {taken.api_port} for api is in use (REPLAY_API_PORT moves it)" in done.stderr
    assert "REPLAY_WAREHOUSE_PORT" not in done.stderr
    assert not (home.home / "kafka").exists(), "nothing was laid out for a stack that cannot run"


def test_one_port_for_two_parts_is_refused(home: Settings) -> None:
    (port,) = free_ports(1)
    done = replay(dataclasses.replace(home, capture_port=port, api_port=port), "up")
    assert done.returncode == 1
    assert f"port {port} is set for capture and api" in done.stderr


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    listening = [
        connection.laddr.ip
        for pid in family(stack)
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 5
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("part", ["capture", "sink-objects"])
def test_a_killed_part_comes_back_and_status_tells_the_truth_meanwhile(stack: Stack, part: str) -> None:
    dead = stack.kill(part)
    eventually(lambda: gone(dead), within_s=5, why=f"{part} is dead")
    seen = next(each for each in stack.status() if each.name == part)
    assert not (seen.pid == dead and seen.ready)
    assert replay(stack.settings, "status", "--json").returncode == 0
    stack.wait_ready(60)
    assert stack.pid(part) not in {dead, None}


def test_kill_9_of_the_supervisor_leaves_nothing_and_the_next_up_has_the_data(stack: Stack) -> None:
    assert send(stack, "before-the-kill").status_code == 200
    pids = family(stack)
    stack.kill("supervisor")
    eventually(lambda: all(gone(pid) for pid in pids), within_s=5, why="all processes are gone")
    rows = json.loads(replay(stack.settings, "status", "--json").stdout)
    assert {row["name"]: (row["pid"], row["ready"]) for row in rows} == dict.fromkeys(PARTS, (None, False))
    start_again(stack)
    eventually(lambda: stored(stack, "before-the-kill") == 1, within_s=30, why="the accepted event is stored, once")


def stop_with(stack: Stack, how: signal.Signals) -> None:
    pids = family(stack)
    began = time.monotonic()
    os.kill(pids[0], how)
    eventually(lambda: all(gone(pid) for pid in pids), within_s=STOP_LIMIT_S, why="all processes are gone")
    assert time.monotonic() - began < STOP_LIMIT_S
    assert stack.status() == []
    settings = stack.settings
    ports = (settings.capture_port, settings.api_port, settings.warehouse_port, settings.kafka_port)
    assert not any(is_taken(port) for port in ports)


def test_ctrl_c_and_sigterm_stop_everything_within_ten_seconds_and_data_stays(stack: Stack) -> None:
    if stack.pid("supervisor") is None:
        start_again(stack)
    assert send(stack, "before-ctrl-c").status_code == 200
    stop_with(stack, signal.SIGINT)
    start_again(stack)
    eventually(lambda: stored(stack, "before-ctrl-c") == 1, within_s=30, why="the accepted event is stored, once")
    stop_with(stack, signal.SIGTERM)
    assert stack.log.read_text() == ""
