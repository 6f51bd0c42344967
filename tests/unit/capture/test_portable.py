"""Half an emoji in any of the body's forms is kept; the repair is bounded."""

from __future__ import annotations

import json

import pytest

from pipeline.capture.formats import portable
from pipeline.capture.formats.portable import decode_batches, decode_recording
from pipeline.errors import MalformedError
from pipeline.model.admission import Limits

AT = 1_795_448_983_032
LIMITS = Limits(events=10_000, payload_bytes=1 << 20)


def body(text: str) -> bytes:
    whole = {"batchId": "b", "sessionId": "s", "sentAt": AT, "startTime": AT}
    events = [{"type": "click", "timestamp": AT, "data": {"text": "@"}}]
    return json.dumps({**whole, "events": events}).replace("@", text).encode()


def texts(sent: bytes) -> list[str]:
    return [
        json.loads(batch.payload)["data"]["text"]
        for batch in decode_batches(sent, tenant="t", received_at=AT, limits=LIMITS)
    ]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (r"\ud83d", "\ufffd"),
        (r"\ude00", "\ufffd"),
        (r"\uD83Dx", "\ufffdx"),
        (r"\ud83d\u0041", "\ufffdA"),
        (r"\ud83d\n", "\ufffd\n"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\\ude00", "\ufffd\\ude00"),
        (r"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (r"\ud83d\ude00", "😀"),
    ],
)
def test_half_an_emoji_becomes_the_replacement_character_and_a_whole_one_stays(written: str, kept: str) -> None:
    good = body("good")
    assert texts(body(written)) == [kept]
    assert texts(b"[" + good + b"," + body(written) + b"]") == ["good", kept]
    assert texts(body(written) + b"\n" + good + b"\n" + body(written)) == [kept, "good", kept]
    (batch,) = decode_recording(body(written), tenant="t", received_at=AT, limits=LIMITS)
    assert json.loads(batch.payload)["data"]["text"] == kept


def test_a_body_that_would_cost_too_much_to_repair_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "REPAIRED_ESCAPES_MAX", 3)
    assert texts(body(r"\n\n\ud83d")) == ["\n\n\ufffd"]
    with pytest.raises(MalformedError):
        texts(body(r"\n\n\n\ud83d"))
