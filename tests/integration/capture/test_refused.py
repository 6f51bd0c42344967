"""What is wrong is refused with one reason and its place, never with what was sent, and the server goes on."""

from __future__ import annotations

import gzip
import json
import secrets
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from tests.integration.capture.front import NOW, Front, a_batch, click, on_topic
from tests.support import need

SECRET = "hunter2-sentinel"
TYPE = "urn:portable-replay:problem:"
AFTER_2100 = 4_102_444_800_001
MiB = 1 << 20


def refused(answer: httpx.Response, status: int, slug: str, path: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert (told["type"], told["status"], told.get("path")) == (TYPE + slug, status, path)
    assert told["title"]
    assert told["detail"]
    assert SECRET not in answer.text


@pytest.fixture(autouse=True)
def goes_on(front: Front) -> Iterator[None]:
    """After every refusal the server lives, takes a good batch, and has logged nothing of what was sent."""
    yield
    assert front.status("/healthz") == 200
    session = f"after-{secrets.token_hex(4)}"
    assert front.post("/v1/batches", json.dumps(a_batch(session))).status_code == 200
    log = front.log.read_text()
    assert SECRET not in log
    assert front.key not in log


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in a_batch("s").items() if key != name}


def event(**more: Any) -> dict[str, Any]:
    return a_batch("s", events=1) | {"events": [click(NOW), {**click(NOW, SECRET), **more}]}


BATCHES: dict[str, tuple[Any, str]] = {
    "not json": (SECRET, "$"),
    "empty": (b"", "$"),
    "cut short": (json.dumps(a_batch("s"))[:-2], "$"),
    "not utf-8": (json.dumps(a_batch("s")).replace("Buy", "\xff").encode("latin-1"), "$"),
    "NaN": (json.dumps(event(data=float("nan"))), "$"),
    "Infinity": (json.dumps(event(data=float("inf"))), "$"),
    "deeper than can be read": (b"[" * 100_000 + b"]" * 100_000, "$"),
    "deeper than can be written": (
        json.dumps(a_batch("s")).replace('"Buy"', "[" * 300 + "]" * 300).encode(),
        "$.events[0]",
    ),
    "a number": (b"5", "$"),
    "a text": (json.dumps(SECRET), "$"),
    "null": (b"null", "$"),
    "second of a list": ([a_batch("s"), SECRET], "$[1]"),
    "second line": (json.dumps(a_batch("s")) + "\n" + SECRET, "line 2: $"),
    "second line's field": (json.dumps(a_batch("s")) + "\n" + json.dumps(without("sentAt")), "line 2: $.sentAt"),
    "no batchId": (without("batchId"), "$.batchId"),
    "no sessionId": (without("sessionId"), "$.sessionId"),
    "no sentAt": (without("sentAt"), "$.sentAt"),
    "no events": (without("events"), "$.events"),
    "sessionId a number": (a_batch("s", sessionId=5), "$.sessionId"),
    "sessionId with a space": (a_batch(f"{SECRET} "), "$.sessionId"),
    "sessionId empty": (a_batch(""), "$.sessionId"),
    "sessionId long": (a_batch("s" * 129), "$.sessionId"),
    "sessionId with a line break": (a_batch("s\n"), "$.sessionId"),
    "batchId not an id": (a_batch("s", f"{SECRET}/x"), "$.batchId"),
    "windowId not an id": (a_batch("s", windowId=f"{SECRET} "), "$.windowId"),
    "userId long": (a_batch("s", userId=SECRET * 20), "$.userId"),
    "userId unprintable": (a_batch("s", userId=f"{SECRET}\x00"), "$.userId"),
    "sequence negative": (a_batch("s", sequence=-1), "$.sequence"),
    "sequence beyond 2**53": (a_batch("s", sequence=1 << 53), "$.sequence"),
    "final a text": (a_batch("s", final=SECRET), "$.final"),
    "metadata a list": (a_batch("s", metadata=[SECRET]), "$.metadata"),
    "viewport a text": (a_batch("s", metadata={"viewport": {"width": SECRET}}), "$.metadata.viewport.width"),
    "url a number": (a_batch("s", metadata={"url": 5}), "$.metadata.url"),
    "sentAt a text": (a_batch("s", sentAt=SECRET), "$.sentAt"),
    "sentAt a fraction": (a_batch("s", sentAt=1.5), "$.sentAt"),
    "sentAt true": (a_batch("s", sentAt=True), "$.sentAt"),
    "sentAt negative": (a_batch("s", sentAt=-1), "$.sentAt"),
    "sentAt after 2100": (a_batch("s", sentAt=AFTER_2100), "$.sentAt"),
    "sentAt beyond 64 bits": (a_batch("s", sentAt=1 << 80), "$.sentAt"),
    "events an object": (a_batch("s") | {"events": {"a": SECRET}}, "$.events"),
    "event a text": (a_batch("s") | {"events": [click(NOW), SECRET]}, "$.events[1]"),
    "timestamp a text": (event(timestamp=SECRET), "$.events[1].timestamp"),
    "timestamp a fraction": (event(timestamp=NOW + 0.5), "$.events[1].timestamp"),
    "timestamp true": (event(timestamp=True), "$.events[1].timestamp"),
    "timestamp null": (event(timestamp=None), "$.events[1].timestamp"),
    "timestamp negative": (event(timestamp=-1), "$.events[1].timestamp"),
    "timestamp after 2100": (event(timestamp=AFTER_2100), "$.events[1].timestamp"),
    "type empty": (event(type=""), "$.events[1].type"),
    "type long": (event(type=SECRET * 5), "$.events[1].type"),
    "type null": (event(type=None), "$.events[1].type"),
    "type a large number": (event(type=1_001), "$.events[1].type"),
}


@pytest.mark.parametrize(("body", "path"), BATCHES.values(), ids=BATCHES)
def test_a_malformed_batch_is_refused_at_its_path(front: Front, body: Any, path: str) -> None:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    refused(front.post("/v1/batches", content), 400, "malformed", path)


def recording(**more: Any) -> dict[str, Any]:
    return {"sessionId": "s", "userId": "u", "startTime": NOW, "endTime": NOW, "events": [click(NOW)], **more}


RECORDINGS: dict[str, tuple[dict[str, Any], str]] = {
    "startTime negative": (recording(startTime=-1), "$.startTime"),
    "startTime negative, no endTime": (recording(startTime=-1, endTime=None), "$.startTime"),
    "endTime after 2100": (recording(endTime=AFTER_2100), "$.endTime"),
    "endTime a text": (recording(endTime=SECRET), "$.endTime"),
    "sessionId": (recording(sessionId=f"{SECRET} "), "$.sessionId"),
    "userId": (recording(userId=f"{SECRET}\x00"), "$.userId"),
    "an event beyond the first piece": (
        recording(events=[click(NOW)] * 6_000 + [click(-1)]),
        "$.events[6000].timestamp",
    ),
    "type beyond the first piece": (
        recording(events=[click(NOW)] * 6_000 + [{**click(NOW), "type": ""}]),
        "$.events[6000].type",
    ),
}


@pytest.mark.parametrize(("body", "path"), RECORDINGS.values(), ids=RECORDINGS)
def test_a_malformed_recording_is_refused_at_the_path_that_was_written(
    front: Front, body: dict[str, Any], path: str
) -> None:
    refused(front.post("/v1/recordings", json.dumps(body)), 400, "malformed", path)


def test_of_a_refused_list_nothing_is_taken(front: Front) -> None:
    session = f"s-{secrets.token_hex(6)}"
    body = json.dumps([a_batch(session), a_batch(session, "b2", sentAt=-1)])
    refused(front.post("/v1/batches", body), 400, "malformed", "$[1].sentAt")
    assert on_topic(front.settings, session) == []


@pytest.mark.parametrize("events", [0, 10_000])
def test_an_empty_batch_and_one_at_the_limit_are_taken(front: Front, events: int) -> None:
    session = f"s-{secrets.token_hex(6)}"
    answer = front.post("/v1/batches", json.dumps(a_batch(session, events=events)))
    assert (answer.status_code, answer.json()) == (200, {"batches": 1, "events": events})
    (record,) = on_topic(front.settings, session)
    assert record.batch.event_count == events


def test_one_event_above_the_limit_is_too_large(front: Front) -> None:
    refused(front.post("/v1/batches", json.dumps(a_batch("s", events=10_001))), 413, "too-large", "$.events")


def test_a_batch_above_the_records_limit_is_too_large(front: Front) -> None:
    body = a_batch("s") | {"events": [click(NOW, SECRET + "x" * (8 * MiB))]}
    refused(front.post("/v1/batches", json.dumps(body)), 413, "too-large", "$.events")


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
@pytest.mark.parametrize("megabytes", [26, 60])
def test_a_body_above_the_limit_is_told_so_and_not_reset(front: Front, chunked: bool, megabytes: int) -> None:
    body: Any = (bytes(MiB) for _ in range(megabytes)) if chunked else bytes(megabytes * MiB)
    refused(front.post("/v1/batches", body), 413, "too-large")


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", "Accept: */*"], ids=["chunked", "Content-Length"])
def test_curl_sees_the_413_too(front: Front, tmp_path: Path, expect: str, length: str) -> None:
    need(shutil.which("curl"), "curl")
    big, out = tmp_path / "big", tmp_path / "answer"
    big.write_bytes(bytes(30 * MiB))
    command = ["curl", "-sS", "-o", str(out), "-w", "%{http_code} %{content_type}", "--max-time", "30"]
    command += ["-H", f"Authorization: Bearer {front.key}", "-H", expect, "-H", length]
    command += ["--data-binary", f"@{big}", f"{front.url}/v1/batches"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "413 application/problem+json"
    assert json.loads(out.read_bytes())["type"] == TYPE + "too-large"


def bomb(packer: Any) -> bytes:
    parts = [packer.compress(bytes(MiB)) for _ in range(300)]
    return b"".join(parts) + packer.flush()


def packed(encoding: str, plain: bytes) -> bytes:
    return gzip.compress(plain) if encoding == "gzip" else zstandard.ZstdCompressor().compress(plain)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_too_large(front: Front, encoding: str) -> None:
    packer = zlib.compressobj(9, wbits=31) if encoding == "gzip" else zstandard.ZstdCompressor(19).compressobj()
    refused(front.post("/v1/batches", bomb(packer), Content_Encoding=encoding), 413, "too-large")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_truncated_compressed_body_is_malformed(front: Front, encoding: str) -> None:
    body = packed(encoding, json.dumps(a_batch("s", events=500)).encode())
    refused(front.post("/v1/batches", body[:-9], Content_Encoding=encoding), 400, "malformed")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_plain_body_that_claims_to_be_compressed_is_malformed(front: Front, encoding: str) -> None:
    refused(front.post("/v1/batches", json.dumps(a_batch("s")), Content_Encoding=encoding), 400, "malformed")


@pytest.mark.parametrize("encoding", ["br", "gzip, zstd", SECRET])
def test_another_content_encoding_is_unsupported(front: Front, encoding: str) -> None:
    refused(front.post("/v1/batches", b"x", Content_Encoding=encoding), 415, "unsupported")


@pytest.mark.parametrize("authorization", ["", f"Bearer {SECRET}", "Bearer", f"Basic {SECRET}", "Bearer é"])
def test_without_a_write_key_it_is_unauthorized(front: Front, authorization: str) -> None:
    headers = {"Authorization": authorization.encode()} if authorization else {}
    answer = httpx.post(f"{front.url}/v1/batches", content=json.dumps(a_batch("s")), headers=headers)
    refused(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert front.key not in answer.text


@pytest.mark.parametrize("query", [f"?key={SECRET}", "?key=", "?key=%ff", "?key=%00"])
def test_a_wrong_key_in_the_query_is_unauthorized(front: Front, query: str) -> None:
    refused(httpx.post(f"{front.url}/v1/batches{query}", content=b"{}"), 401, "unauthorized")


def test_an_unknown_route_and_a_wrong_method_are_problems(front: Front) -> None:
    refused(httpx.post(f"{front.url}/v2/{SECRET}", content=b"{}"), 404, "not-found")
    answer = httpx.put(f"{front.url}/v1/batches", content=b"{}")
    refused(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "POST"
