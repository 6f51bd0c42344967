"""Payloads: one line an event whatever the data looks like; half an emoji repaired, all else left alone."""

from __future__ import annotations

import json

import msgspec
import pytest

from pipeline.model.events import SessionEvent, decode_payload, encode_payload, repair_surrogates

LONG = b"[" + b"1," * 4_000
"""Lines so long that line breaks are looked for in another way."""


@pytest.mark.parametrize("data", [b'{"x":\n1}', b"[1,\r\n2]", b'"\\n"', b"null", b'{"a":{"b":\n\n[]}}',
                                  LONG + b"2]", LONG + b"\n2]", LONG + b'2,\n\n"\\n"\n]'])  # fmt: skip
def test_an_event_is_one_line_and_its_data_means_the_same(data: bytes) -> None:
    events = [SessionEvent("click", 1, msgspec.Raw(data)), SessionEvent(3, 2, msgspec.Raw(b"{}"))]
    lines = encode_payload(events).split(b"\n")
    assert [json.loads(line) for line in lines] == [
        {"type": "click", "timestamp": 1, "data": json.loads(data)},
        {"type": 3, "timestamp": 2, "data": {}},
    ]
    assert len(decode_payload(encode_payload(events))) == 2


def test_no_event_is_an_empty_payload() -> None:
    assert encode_payload([]) == b""


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\ude00"', rb'"\ufffd"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\ud8","x"', rb'"\ud8","x"'),
        (rb'"\u00e9\n"', rb'"\u00e9\n"'),
    ],
)
def test_only_lone_surrogates_are_repaired(text: bytes, repaired: bytes) -> None:
    assert repair_surrogates(text) == repaired
