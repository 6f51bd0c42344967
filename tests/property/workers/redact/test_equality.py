"""The gated way equals reading and walking every event, whatever the spelling: to the byte where the JSON is as capture
writes it, in meaning otherwise, and in the state it carries on."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.load.recordings import bundled
from pipeline.model.events import SessionEvent
from pipeline.workers.redact.events import Redactor
from pipeline.workers.redact.rules import BUILT_IN
from pipeline.workers.redact.typed import Typed

PIECES = [
    "a.b@c.io", "x%40y.org", "a@b.1.co", "4111111111111111", "4111 1111 1111 1111", "3782 822463 10005", "+12025550123",
    "DE89 3704 0044 0532 0130 00", "123-45-6789", "020 7946 0958", "(202) 555-0123", "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln",
    "Bearer abcdefgh12345", "bearer\nabcdefgh12345", "AKIAIOSFODNN7EXAMPLE", "https://u:p@h.io/x", "?token=abc", "&code=zz",
    '{"password":"hunter2"}', "'api_key': 'zz'", "pin = 5", "bm90ZTogYS5iQGMuaW8=", "\\", '"', "\n", "\t", "\x0b", "/", "\u212a",
    "é", "４１１１", "@", ".", " ", "1", "-", "+", ":", "=", ",", "{", "}", "[", "]", "%", "%4", "😀", "\x01", "\x19", "card",
    "secret", "logo@2x.png", "2.4111111111111111", "1795448822174", "tokens",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=4).map("".join)
KEYS = st.sampled_from(
    ["password", "token", "card", "Card No", "cvv", "auth", "x", "text", "value", "style", "textContent", "isStyle", "a@b.co",
     "api-key", 'pass"word"', 'card "x"', "user[pin]", "d", "source", "type", "id", "tagName", "attributes", "to\u212aen"]
) | TEXT  # fmt: skip
NUMBERS = st.integers(-10, 10**6) | st.sampled_from(
    [4111111111111111, 1795448822174, 4111111111111112, 1.5, 965.3350830078125]
)
JSON = st.recursive(
    TEXT | NUMBERS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
IDS = st.integers(1, 5)
D = st.fixed_dictionaries
NODES = st.recursive(
    D({"type": st.just(3), "textContent": TEXT, "id": IDS}, optional={"isStyle": st.just(True)}),
    lambda inner: D(
        {"type": st.just(2), "tagName": st.sampled_from(["input", "div", "textarea", "style", "INPUT"]), "id": IDS,
         "attributes": st.dictionaries(st.sampled_from(["type", "name", "value", "href", "style", "class", "data-token", "d"]),
                                       TEXT | st.sampled_from(["password", "email", "q"]), max_size=3),
         "childNodes": st.lists(inner, max_size=2)}
    ),
    max_leaves=4,
)  # fmt: skip
MUTATIONS = D(
    {"source": st.just(0), "texts": st.lists(D({"id": IDS, "value": TEXT}), max_size=2),
     "attributes": st.lists(D({"id": IDS, "attributes": st.dictionaries(KEYS, TEXT, max_size=2)}), max_size=2),
     "adds": st.lists(D({"parentId": IDS, "node": NODES}), max_size=2)}
)  # fmt: skip
EVENTS = st.one_of(
    st.tuples(st.sampled_from(["click", "console", "navigation", "submit", "error", "custom", "a@b.io", 4, 5, 6]), JSON),
    st.tuples(st.just("input"), D({"target": st.sampled_from(["#q", "div > input#email", "#a"]), "value": TEXT | NUMBERS,
                                   "inputType": st.sampled_from(["text", "password"])})),
    st.tuples(st.just("input"), JSON),
    st.tuples(st.just(2), D({"node": NODES})),
    st.tuples(st.just(3), MUTATIONS),
    st.tuples(st.just(3), D({"source": st.just(5), "text": TEXT, "isChecked": st.booleans(), "id": IDS})),
    st.tuples(st.just(3), D({"source": st.just(2), "type": st.integers(0, 6), "id": IDS})),
    st.tuples(st.just(3), JSON),
)  # fmt: skip


def spell(value: Any, how: int) -> bytes:
    if how == 0:
        return msgspec.json.encode(value)
    if how == 1:
        return json.dumps(value).encode()
    if how == 2:
        return msgspec.json.encode(value).replace(b"/", b"\\/")
    text = json.dumps(value, separators=(",\n", " :\t"))
    letter = "acopst@4"[how - 3]
    return text.replace(f"{letter}", f"\\u{ord(letter):04x}").encode() if f"\\{letter}" not in text and letter not in (
        "a", "t") and "\\u" not in text and "true" not in text and "false" not in text and "null" not in text and not any(
        each.isdigit() for each in letter) else text.encode()  # fmt: skip


def run(batches: list[list[SessionEvent]], *, gated: bool, exact: bool) -> tuple[list[Any], Typed, Counter[str]]:
    """`exact`: compact JSON as capture writes it must leave in the same bytes, other spellings with the same meaning."""
    read = bytes if exact else json.loads
    typed, counts, left = Typed(), Counter[str](), []
    for events in batches:
        redactor = Redactor(BUILT_IN, typed, counts, gated=gated)
        left.append([(each.type, read(bytes(each.data))) for each in redactor.clean(events)])
        typed = redactor.typed
    return left, typed, counts


@settings(deadline=None, max_examples=1_500)
@given(st.lists(st.lists(EVENTS, min_size=1, max_size=5), min_size=1, max_size=3), st.integers(0, 10) | st.just(0))
def test_gate_passes_over_nothing_that_the_walk_would_change(batches: list[list[Any]], how: int) -> None:
    made = [
        [SessionEvent(kind, at, msgspec.Raw(spell(data, how))) for at, (kind, data) in enumerate(events)]
        for events in batches
    ]
    assert run(made, gated=True, exact=how == 0) == run(made, gated=False, exact=how == 0)


def test_gate_passes_over_nothing_in_the_bundled_recordings() -> None:
    for each in bundled():
        events = each.recording.events
        for size in (25, 400):
            batches = [events[at : at + size] for at in range(0, len(events), size)]
            assert run(batches, gated=True, exact=True) == run(batches, gated=False, exact=True)
