"""Canaries of every kind, in every spelling, at random places of real recordings, through a whole running stack: no byte of
what it keeps or tells has one, but the raw log and the dead letters, whose bytes are raw by design."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pipeline.keys import KeyFile
from pipeline.local.stack import Stack
from pipeline.model.batches import Metadata, RecorderBatch, session_key
from pipeline.producer import BatchProducer
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from tests.canaries import left_in
from tests.e2e import accounts
from tests.e2e.everywhere import Search, everything, raw_log
from tests.planting import ENCODINGS, KINDS, Canary, among, draw, places, put, put_at, with_text
from tests.recordings import events_of

PORTABLE = "portable-browse-login-checkout"
RRWEB = ("rrweb-browse-login-checkout", "posthog-array-nomask-browse-login-checkout")
PLANTABLE_BYTES_MAX = 20_000
PLACES = {
    "snapshot text", "snapshot attribute", "mutation text", "added text", "added attribute", "input", "page address",
    "custom event", "plugin rrweb/console@1", "plugin rrweb/network@1",
}  # fmt: skip
THROTTLED = {"mousemove", "scroll"}
HOLD_THE_SESSION_ID = ("replay.clean", "replay.sessions", "replay.state", "table events", "table sessions", "table blocks",
                       ".jsonl.zst, unpacked", "data.bin, unpacked")  # fmt: skip
"""Where the run's session ids must be found, which are no secret: so each of these was read as it is kept."""

Events = list[dict[str, Any]]


def recorded(name: str) -> Events:
    """A recording's events, moved so that the last of them happens now."""
    events = events_of(name)
    shift = time.time_ns() // 1_000_000 - max(each.timestamp for each in events)
    return [
        {"type": each.type, "timestamp": each.timestamp + shift, "data": with_text(json.loads(bytes(each.data)))}
        for each in events
    ]


def one_of_each(rng: random.Random) -> list[Canary]:
    made = [draw(rng, kind, encoding) for kind in KINDS for encoding in ENCODINGS]
    rng.shuffle(made)
    return made


def plant_portable(events: Events, canaries: list[Canary], rng: random.Random) -> None:
    at = [number for number, each in enumerate(events) if each["type"] not in THROTTLED]
    for number, canary in zip(rng.sample(at, len(canaries)), canaries, strict=True):
        events[number]["data"] = put(events[number]["data"], canary.spelled, rng)


def plant_rrweb(events: Events, canaries: list[Canary], rng: random.Random) -> set[str]:
    """At places that are drawn by their sort, each place once. Returns the sorts."""
    open_places: dict[str, list[tuple[int, Any]]] = {}
    for number, each in enumerate(events):
        if len(json.dumps(each["data"])) < PLANTABLE_BYTES_MAX:
            for sort, paths in places(each["type"], each["data"]).items():
                open_places.setdefault(sort, []).extend((number, path) for path in paths)
    for canary in canaries:
        sort = rng.choice(sorted(sort for sort, left in open_places.items() if left))
        number, path = open_places[sort].pop(rng.randrange(len(open_places[sort])))
        events[number]["data"] = put_at(events[number]["data"], path, among(canary.spelled, rng))
    return set(open_places)


def in_pieces(events: Events, size: int) -> Iterator[tuple[int, Events]]:
    for first in range(0, len(events), size):
        yield first // size, events[first : first + size]


def over_http(settings: Settings, session_id: str, events: Events, page: Canary) -> None:
    """As a browser sends them; then one request that capture refuses."""
    url = f"http://127.0.0.1:{settings.capture_port}/v1/batches"
    headers = {"Authorization": f"Bearer {KeyFile(settings.keys).first().write}"}
    about = {"sessionId": session_id, "clientVersion": page.text}
    about["metadata"] = {"userAgent": page.text, "viewport": {"width": 1, "height": 1}, "url": page.text}  # type: ignore[assignment]
    for number, some in in_pieces(events, 25):
        body = {**about, "batchId": f"b{number}", "sentAt": some[-1]["timestamp"], "events": some}
        answer = httpx.post(url, json=body, headers=headers, trust_env=False)
        assert answer.status_code == 200, answer.text
    body["events"] = [{**some[0], "timestamp": page.secret}]
    refused = httpx.post(url, json=body, headers=headers, trust_env=False)
    assert refused.status_code == 400
    assert left_in(refused.content, [page.secret]) == []


def over_kafka(settings: Settings, session_id: str, events: Events, page: Canary) -> None:
    """As a service sends them."""
    about = Metadata(url=page.text, user_agent=page.text)
    with BatchProducer(settings, tenant="default", client_version=page.text) as producer:
        for number, some in in_pieces(events, 30):
            producer.send(session_id=session_id, batch_id=f"b{number}", events=some, metadata=about)


def poison(settings: Settings, session_id: str, canary: Canary) -> None:
    """A batch whose payload no worker can read: it becomes a dead letter."""
    topics = catalogue(settings)
    batch = RecorderBatch(
        tenant="default", session_id=session_id, window_id="w", user_id="anonymous", batch_id="b", sequence=None,
        source="portable", client_version=None, imported=False, final=False, sent_at=0, received_at=0,
        metadata=Metadata(), first_event_at=0, last_event_at=0, event_count=1,
        payload=json.dumps({"type": "click", "timestamp": 1, "data": canary.spelled})[:-1].encode(),
    )  # fmt: skip
    producer = clients.producer(settings, client_id="canaries")
    value = Codecs(topics, schema_ids(settings)).batches.encode(batch)
    producer.produce(topics.batches.name, value, session_key("default", batch.session_id))
    assert producer.flush(30) == 0


def test_no_canary_is_anywhere_but_where_raw_bytes_are_kept(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    settings = stack.settings
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    with capsys.disabled():
        print(f"\ncanaries through the whole stack: seed {seed}")
    run = f"canaries-{seed:08x}"
    page, in_poison = draw(rng, "query", "plain"), draw(rng, "email", "plain")
    planted = [page, in_poison]

    canaries = one_of_each(rng)
    events = recorded(PORTABLE)
    plant_portable(events, canaries, rng)
    planted += canaries
    over_http(settings, f"{run}-portable", events, page)
    sorts: set[str] = set()
    for name in RRWEB:
        canaries = one_of_each(rng)
        events = recorded(name)
        sorts |= plant_rrweb(events, canaries, rng)
        planted += canaries
        over_kafka(settings, f"{run}-{name}", events, page)
    assert sorts >= PLACES
    poison(settings, f"{run}-poison", in_poison)
    accounts.arrived(settings)

    search = Search([run, *(each.secret for each in planted)])
    sent = search(raw_log(settings))
    assert sent >= {each.secret for each in planted} - {in_poison.secret}, "the search finds what was sent"
    told, marked = [], []
    for where, text in everything(settings):
        for each in search(text):
            (marked if each == run else told).append((where, each))
    assert told == [], seed
    for where in HOLD_THE_SESSION_ID:
        assert any(where in each for each, _ in marked), f"{where} was not read"
