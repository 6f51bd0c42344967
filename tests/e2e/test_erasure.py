"""Erasure in a whole stack: what was erased is nowhere in the stores, what was not is as it was, and it is certified."""

from __future__ import annotations

import dataclasses
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pipeline.keys import KeyFile
from pipeline.local.stack import Stack
from pipeline.settings import Settings
from pipeline.storage.blobs import open_store
from pipeline.storage.blocks import MANIFEST_SUFFIX, OBJECT_SUFFIX
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics.catalogue import catalogue
from tests.e2e import accounts
from tests.e2e.conftest import settings_for
from tests.e2e.everywhere import files_of
from tests.support import eventually

ERASED_LIMIT_S = 300.0
BATCHES, EVENTS = 4, 5
STORES = ("warehouse/", "objects/")


@dataclasses.dataclass(frozen=True)
class Shop:
    """A running stack whose sessions share one partition, so every object."""

    stack: Stack
    settings: Settings
    marks: dict[str, str]
    """By session: a word that is said nowhere else."""

    def api(self, role: str = "admin") -> httpx.Client:
        key = getattr(KeyFile(self.settings.keys).first(), role)
        url = f"http://127.0.0.1:{self.settings.api_port}"
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30)

    def send(self, session_id: str, number: int, user_id: str) -> None:
        now = time.time_ns() // 1_000_000
        said = f"{self.marks[session_id]}{number}"
        events: list[dict[str, Any]] = [
            {
                "type": "click",
                "timestamp": now + n,
                "data": {"x": n, "y": n, "target": "p", "text": said, "tagName": "P"},
            }
            for n in range(EVENTS - 1)
        ]
        events.append(
            {
                "type": "navigation",
                "timestamp": now + EVENTS,
                "data": {"url": f"http://shop.test/{said}", "state": None},
            }
        )
        batch = {
            "batchId": f"{session_id}-{number}",
            "sessionId": session_id,
            "userId": user_id,
            "sentAt": now,
            "events": events,
        }
        batch["metadata"] = {"userAgent": "x", "viewport": {"width": 1, "height": 1}, "url": f"http://shop.test/{said}"}
        key = KeyFile(self.settings.keys).first().write
        url = f"http://127.0.0.1:{self.settings.capture_port}/v1/batches"
        assert httpx.post(url, params={"key": key}, json=batch, trust_env=False).status_code == 200

    def count(self, table: str, session_id: str, what: str = "count()") -> int:
        found: int = ClickHouse(self.settings).value(
            f"SELECT {what} FROM {{db}}.{table} WHERE session_id = {{s:String}}", s=session_id
        )
        return found

    def recording(self, session_id: str) -> bytes:
        answer = self.api("read").get(f"/v1/sessions/{session_id}/recording", params={"format": "ndjson"})
        assert answer.status_code == 200
        return answer.content

    def done(self, request_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.api("read").get(f"/v1/erasures/{request_id}").json()
            return found if found["status"] == "done" else None

        return eventually(look, within_s=ERASED_LIMIT_S, why=f"erasure {request_id} is done")

    def where_is(self, word: str) -> list[str]:
        """Files of the two stores that hold the word, as they are or unpacked."""
        return [where for where, body in files_of(self.settings) if where.startswith(STORES) and word.encode() in body]


USERS = {"gone": "erin", "stays": "sam", "u1": "many", "u2": "many", "u3": "many", "other": "one"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    home = tmp_path_factory.mktemp("erasure")
    settings = dataclasses.replace(settings_for(home), topic_partitions=1, objects_flush_age_ms=1_000)
    with Stack(settings) as stack:
        for table in (
            "events",
            "sessions",
            "session_users",
            "blocks",
            "erasure_requests",
        ):  # else two minutes an erasure
            ClickHouse(settings).command(
                f"ALTER TABLE {{db}}.{table} MODIFY SETTING old_parts_lifetime = 2, max_cleanup_delay_period = 2, "
                "cleanup_delay_period = 2"
            )
        shop = Shop(stack, settings, {name: f"mark{secrets.token_hex(8)}x" for name in USERS})
        for number in range(BATCHES):
            for session_id, user_id in USERS.items():
                shop.send(session_id, number, user_id)
        for session_id in USERS:
            for table, what in (("events", "count()"), ("blocks", "sum(event_count)")):
                eventually(
                    lambda t=table, w=what, s=session_id: shop.count(t, s, w) == BATCHES * EVENTS,
                    within_s=60,
                    why=f"{session_id} is in {table}",
                )
        yield shop


def test_erased_session_is_nowhere_in_the_stores_and_its_neighbour_is_as_it_was(shop: Shop) -> None:
    before = shop.recording("stays")
    blocks, size = shop.count("blocks", "gone"), shop.count("blocks", "gone", "sum(byte_length)")
    objects = {
        row[0] for row in ClickHouse(shop.settings).rows("SELECT object FROM {db}.blocks WHERE session_id = 'gone'")
    }
    assert objects & {
        row[0] for row in ClickHouse(shop.settings).rows("SELECT object FROM {db}.blocks WHERE session_id = 'stays'")
    }
    assert shop.where_is(shop.marks["gone"]), "the search finds what is there"

    answer = shop.api().delete("/v1/sessions/gone")
    assert answer.status_code == 202
    asked = answer.json()
    assert answer.headers["Location"] == f"/v1/erasures/{asked['id']}"
    assert (asked["asked"]["kind"], asked["asked"]["subject"]) == ("session", "gone")
    told = shop.done(asked["id"])["certificate"]

    assert told["sessions"] == 1
    assert told["removed"]["rows"]["events"] == BATCHES * EVENTS
    assert told["removed"]["objects"] == {"objects": len(objects), "blocks": blocks, "bytes": size}
    assert shop.where_is(shop.marks["gone"]) == []
    assert shop.where_is("erin") == []
    assert shop.recording("stays") == before
    assert shop.where_is(shop.marks["stays"])
    for path in ("/v1/sessions/gone", "/v1/sessions/gone/recording"):
        assert shop.api().get(path).status_code == 404
    listed = shop.api().get("/v1/sessions", params={"limit": 1000}).json()["sessions"]
    assert "gone" not in {each["session_id"] for each in listed}


def test_other_objects_of_the_store_are_still_read_as_they_were(shop: Shop) -> None:
    lines = accounts.stored_lines(shop.settings)
    assert sum(1 for each in lines.elements() if each.session_id == "stays") == BATCHES * EVENTS


def test_late_events_of_an_erased_session_are_refused_and_counted(shop: Shop) -> None:
    shop.send("gone", 99, "erin")

    def refused() -> int:
        return sum(each.erased for each in accounts.clean_log(shop.settings).values() if each.session_id == "gone")

    eventually(lambda: refused() == EVENTS, within_s=30, why="the late batch is counted as erased")
    shop.send("stays", 98, "sam")
    eventually(lambda: shop.count("events", "stays") == (BATCHES + 1) * EVENTS, within_s=30, why="the sinks went on")
    assert shop.count("events", "gone") == shop.count("blocks", "gone") == 0
    assert shop.where_is(shop.marks["gone"]) == []


def test_user_is_erased_with_every_session_though_the_eraser_is_killed(shop: Shop) -> None:
    asked = shop.api().delete("/v1/users/many").json()
    killed = shop.stack.kill("api")
    eventually(
        lambda: any(part.name == "api" and part.ready and part.pid != killed for part in shop.stack.status()),
        within_s=60,
        why="api is back",
    )
    found = shop.done(asked["id"])
    told = found["certificate"]
    assert sorted(told["session_ids"]) == ["u1", "u2", "u3"]
    assert told["sessions"] == 3
    assert re.fullmatch("sha256:[0-9a-f]{64}", found["asked"]["subject"])
    for session_id in ("u1", "u2", "u3"):
        assert shop.where_is(shop.marks[session_id]) == []
    assert shop.where_is(shop.marks["other"])
    eventually(lambda: not shop.where_is("many"), within_s=120, why="the user's name is gone from the requests, too")


def test_certificate_says_what_remains_in_topics_until_when(shop: Shop) -> None:
    asked = shop.api().delete("/v1/sessions/never-seen").json()
    told = shop.done(asked["id"])["certificate"]
    assert told["removed"]["rows"] == {} or not any(told["removed"]["rows"].values())
    named = {each["where"] for each in told["remains"]}
    topics = catalogue(shop.settings)
    assert {f"topic {each.name}" for each in (topics.batches, topics.clean, topics.sessions, topics.state)} <= named
    assert all(each["until"] for each in told["remains"])


def test_manifests_say_what_their_objects_say(shop: Shop) -> None:
    store = open_store(shop.settings)
    keys = [key for key in store.keys("replays/") if key.endswith(OBJECT_SUFFIX)]
    assert keys
    for key in keys:
        text, _ = store.get(key.removesuffix(OBJECT_SUFFIX) + MANIFEST_SUFFIX)
        assert b'"gone"' not in text


@pytest.mark.parametrize(("role", "status"), [("read", 401), ("write", 401), ("admin", 202)])
def test_only_an_admin_key_erases(shop: Shop, role: str, status: int) -> None:
    assert shop.api(role).delete("/v1/sessions/nobody").status_code == status


@pytest.mark.parametrize("path", ["/v1/sessions/gone~2", "/v1/sessions/%20", "/v1/users/anonymous"])
def test_what_cannot_be_erased_is_refused(shop: Shop, path: str) -> None:
    assert shop.api().delete(path).status_code == 400


def test_erasure_that_nobody_asked_for_is_not_found(shop: Shop) -> None:
    assert shop.api().get("/v1/erasures/er_0").status_code == 404
