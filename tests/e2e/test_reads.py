"""The first reads, over HTTP and on the command line, of what a whole stack stored."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from pipeline.keys import KeyFile
from pipeline.load.recordings import bundled
from pipeline.local.parts import child_environ
from pipeline.local.stack import Stack
from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from tests.e2e import accounts
from tests.e2e.conftest import RUN
from tests.support import eventually

SESSION = f"{RUN}-portable-spa-live-1"
NEVER_THROTTLED = {"click", "input", "submit", "navigation", "console", "error", "promise_error", "initial_state"}


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    return stack.settings


@pytest.fixture(scope="module")
def api(settings: Settings) -> httpx.Client:
    return client(settings, KeyFile(settings.keys).first().read)


def client(settings: Settings, key: str) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{settings.api_port}", headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )


def send(settings: Settings, key: str, **batch: Any) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{settings.capture_port}/v1/batches", params={"key": key}, json=batch, trust_env=False
    )
    assert answer.status_code == 200, answer.text


def stored(settings: Settings, tenant: str, session: str, events: int) -> None:
    for table, count in (("events", "count()"), ("blocks", "sum(event_count)"), ("sessions FINAL", "sum(events)")):
        sql = f"SELECT {count} FROM {{db}}.{table} WHERE tenant = {{tenant:String}} AND session_id = {{session:String}}"
        eventually(
            lambda sql=sql: ClickHouse(settings).value(sql, tenant=tenant, session=session) == events,
            within_s=30,
            why=f"{events} events of {tenant}:{session} in {table}",
        )


def test_pages_of_any_size_give_every_session_once(settings: Settings, api: httpx.Client) -> None:
    wanted = {key for key in accounts.stored_sessions(settings) if key[0].startswith(RUN)}
    for limit in (1, 4, 1000):
        found: list[tuple[str, str]] = []
        cursor: dict[str, str] = {}
        for _ in itertools.count():
            page = api.get("/v1/sessions", params={"limit": limit, **cursor}).json()
            assert len(page["sessions"]) <= limit
            found += [(each["session_id"], each["part"]) for each in page["sessions"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert sorted(each for each in found if each[0].startswith(RUN)) == sorted(wanted)


def test_filters_by_user(settings: Settings, api: httpx.Client) -> None:
    found = api.get("/v1/sessions", params={"user_id": f"{RUN}-user-1", "limit": 1000}).json()["sessions"]
    assert found
    assert {each["user_id"] for each in found} == {f"{RUN}-user-1"}
    assert api.get("/v1/sessions", params={"user_id": "nobody"}).json() == {"sessions": [], "next_cursor": None}


def test_recording_is_what_the_page_emitted_less_what_the_rules_removed(api: httpx.Client) -> None:
    sent = next(each.recording for each in bundled() if each.name == "portable-spa-live")
    got = api.get(f"/v1/sessions/{SESSION}/recording").json()
    assert got["sessionId"] == SESSION
    assert got["metadata"]["userAgent"] == sent.metadata.user_agent
    assert got["endTime"] == max(event["timestamp"] for event in got["events"])
    times = [event["timestamp"] for event in got["events"]]
    assert times == sorted(times)
    kinds = [event["type"] for event in got["events"] if event["type"] in NEVER_THROTTLED]
    assert kinds == [
        event.type for event in sorted(sent.events, key=lambda e: e.timestamp) if event.type in NEVER_THROTTLED
    ]
    clicks = [event["data"] for event in got["events"] if event["type"] == "click"]
    assert clicks == [json.loads(bytes(event.data)) for event in sent.events if event.type == "click"]


def test_ndjson_form_is_the_same_events_a_line_each(api: httpx.Client) -> None:
    whole = api.get(f"/v1/sessions/{SESSION}/recording").json()["events"]
    answer = api.get(f"/v1/sessions/{SESSION}/recording", params={"format": "ndjson"})
    assert [json.loads(line) for line in answer.text.splitlines()] == whole


def test_a_gap_makes_a_second_part_that_can_be_read_alone(settings: Settings, api: httpx.Client) -> None:
    now = time.time_ns() // 1_000_000
    click = {"type": "click", "data": {"x": 1, "y": 2}}
    times = [now - 3_700_000, now - 3_600_000, now]
    send(
        settings, KeyFile(settings.keys).first().write, batchId="b", sessionId="two-parts", sentAt=now,
        events=[{**click, "timestamp": at} for at in times],
    )  # fmt: skip
    stored(settings, "default", "two-parts", 3)
    whole = api.get("/v1/sessions/two-parts").json()
    assert [(part["part"], part["events"], part["close_reason"]) for part in whole["parts"]] == [
        ("1", 2, "idle"),
        ("2", 1, None),
    ]
    assert whole["events"] == 3
    second = api.get("/v1/sessions/two-parts~2/recording").json()
    assert [event["timestamp"] for event in second["events"]] == [now]
    assert (second["startTime"], second["endTime"]) == (now, now)
    assert len(api.get("/v1/sessions/two-parts/recording").json()["events"]) == 3


def test_a_tenant_sees_its_own_only_even_under_the_same_session_id(settings: Settings, api: httpx.Client) -> None:
    keys = KeyFile(settings.keys)
    keys.add("write", "write-of-acme", "acme")
    keys.add("read", "read-of-acme", "acme")
    now = time.time_ns() // 1_000_000
    for key, text in (("write-of-acme", "acme's"), (keys.first().write, "ours")):
        events = [{"type": "click", "timestamp": now, "data": {"x": 1, "y": 1, "text": text}}]
        send(settings, key, batchId="b", sessionId="shared-id", sentAt=now, events=events)
    for tenant in ("acme", "default"):
        stored(settings, tenant, "shared-id", 1)
    acme = client(settings, "read-of-acme")
    for who, text in ((acme, "acme's"), (api, "ours")):
        events = who.get("/v1/sessions/shared-id/recording").json()["events"]
        assert [event["data"]["text"] for event in events] == [text]
    assert [each["session_id"] for each in acme.get("/v1/sessions").json()["sessions"]] == ["shared-id"]
    assert acme.get(f"/v1/sessions/{SESSION}").status_code == 404
    assert acme.get(f"/v1/sessions/{SESSION}/recording").status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/v1/sessions/there-is-none", 404, "not-found"),
        ("/v1/sessions/there-is-none/recording", 404, "not-found"),
        (f"/v1/sessions/{SESSION}~9", 404, "not-found"),
        (f"/v1/sessions/{SESSION}/recording?format=gif", 400, "malformed"),
        ("/v1/sessions?limit=0", 400, "malformed"),
        ("/v1/sessions?from=yesterday", 400, "malformed"),
        ("/v1/sessions?cursor=%00", 400, "malformed"),
        ("/v1/nothing", 404, "not-found"),
    ],
)
def test_what_cannot_be_answered_is_a_problem(api: httpx.Client, path: str, status: int, kind: str) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["type"].endswith(f":{kind}")


def test_reading_takes_a_read_or_admin_key(settings: Settings) -> None:
    keys = KeyFile(settings.keys).first()
    assert client(settings, keys.admin).get("/v1/sessions").status_code == 200
    for key in (keys.write, "nonsense"):
        assert client(settings, key).get("/v1/sessions").status_code == 401


def test_command_line_lists_and_shows(settings: Settings) -> None:
    def replay(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            env=child_environ(settings), capture_output=True, text=True, check=False,
        )  # fmt: skip

    listed = replay("sessions", "--limit", "1000")
    assert SESSION in [line.split()[0] for line in listed.stdout.splitlines()]
    shown = replay("show", SESSION)
    assert shown.stdout.splitlines()[0].split() == ["session_id", SESSION]
    assert json.loads(replay("show", SESSION, "--recording").stdout)["sessionId"] == SESSION
    missing = replay("show", "there-is-none")
    assert (missing.returncode, missing.stderr) == (1, "replay: there is no session (part) by this id\n")


def test_a_damaged_block_is_reported_and_the_rest_is_served(settings: Settings, api: httpx.Client) -> None:
    write = KeyFile(settings.keys).first().write
    now = time.time_ns() // 1_000_000
    for number in range(2):
        events = [{"type": "click", "timestamp": now + number, "data": {"x": number, "y": 1}}]
        send(settings, write, batchId=f"b{number}", sessionId="damaged", sentAt=now, events=events)
        stored(settings, "default", "damaged", number + 1)
    key, n, start = ClickHouse(settings).rows(
        "SELECT object, n, byte_start FROM {db}.blocks WHERE session_id = 'damaged' ORDER BY source_offset LIMIT 1"
    )[0]
    path = settings.home / "objects" / key
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[start + 5] ^= 0xFF
    path.write_bytes(damaged)
    try:
        whole_answer = api.get("/v1/sessions/damaged/recording")
        lines = api.get("/v1/sessions/damaged/recording", params={"format": "ndjson"}).text.splitlines()
    finally:
        path.write_bytes(whole)  # the stack is shared
    problems = [{"block": f"{key}#{n}", "why": "corrupt"}]
    assert whole_answer.status_code == 200
    assert whole_answer.json()["problems"] == problems
    assert [event["data"]["x"] for event in whole_answer.json()["events"]] == [1]
    assert [json.loads(line) for line in lines] == [*whole_answer.json()["events"], {"problems": problems}]
