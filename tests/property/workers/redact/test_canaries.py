"""Secrets of every kind, in random encodings, at random places of real recordings: through the chain, none is left in what
leaves it: clean record, session updates, encoded state."""

from __future__ import annotations

import base64
import json
import random
import secrets
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import pytest

from pipeline.load.recordings import bundled
from pipeline.model.batches import Metadata
from pipeline.workers.chain import Where, step
from pipeline.workers.rules import Rules
from pipeline.workers.state import encode_state
from tests.unit.workers.flow import T0, batch

CASES = 10_000
CASES_A_BATCH = 10


def luhn(digits: str) -> str:
    total = sum(sum(divmod(int(each) * (1 + (at + 1) % 2), 10)) for at, each in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def secret_of(kind: str, rng: random.Random) -> tuple[str, str]:
    """(a text that holds the secret, the secret)."""
    word = "".join(rng.choices("abcdefghjkmnp", k=10)) + str(rng.randrange(100, 999))
    number = f"{rng.randrange(10**11):011}"
    texts = {
        "email": (f"{word}@mail.example.test", word),
        "card": ("4111" + luhn("4111" + number)[4:],) * 2,
        "spaced card": (" ".join(("4111" + luhn("4111" + number)[4:])[at : at + 4] for at in range(0, 16, 4)),) * 2,
        "ssn": (f"{rng.randrange(100, 600)}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}",) * 2,
        "phone": (f"+1202{rng.randrange(2000000, 9999999)}",) * 2,
        "jwt": (f"eyJhbGciOiJI.{word}.{word}", word),
        "bearer": (f"Authorization: Bearer {word}", word),
        "key": (f"sk_live_{word}", word),
        "userinfo": (f"https://ann:{word}@h.example.test/", word),
        "query": (f"https://h.example.test/r?a=1&reset_token={word}", word),
        "member": (json.dumps({"n": 1, "password": word}), word),
        "text": (f"password: {word}", word),
    }
    return texts[kind]


KINDS = ["email", "card", "spaced card", "ssn", "phone", "jwt", "bearer", "key", "userinfo", "query", "member", "text"]
ENCODINGS = {
    "plain": lambda text: text,
    "json": lambda text: json.dumps({"v": text}),
    "percent": lambda text: "https://h.example.test/?next=" + quote(text, safe=""),
    "percent all": lambda text: "".join(f"%{each:02x}" for each in text.encode()),
    "base64": lambda text: base64.b64encode(f"some note {text}".encode()).decode(),
}


def opened(text: bytes) -> str:
    """What a reader gets who undoes percent-encoding, escapes and base64."""
    plain = text.decode("utf-8", "replace")
    plain = plain + unquote(plain)
    return plain + plain.replace("\\", "")


def put(value: Any, text: str, rng: random.Random) -> Any:
    """The text at a random string of the value, or beside its members."""
    if isinstance(value, dict):
        keys = [key for key, inner in value.items() if isinstance(inner, str | list | dict)]
        if not keys or rng.random() < 0.2:
            return {**value, rng.choice(["extra", "note", text]): text}
        key = rng.choice(keys)
        return {**value, key: put(value[key], text, rng)}
    if isinstance(value, list) and value:
        at = rng.randrange(len(value))
        return [*value[:at], put(value[at], text, rng), *value[at + 1 :]]
    return rng.choice([text, f"before {text} after", f"({text})"]) if isinstance(value, str) else text


@pytest.fixture(scope="module")
def originals() -> list[Any]:
    return [
        (event.type, json.loads(bytes(event.data)))
        for each in bundled()
        for event in each.recording.events[:: 97 if each.hostile else 7]
        if event.type not in ("mousemove", "scroll") and len(event.data) < 4_000
    ]


def test_no_canary_is_left(originals: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    with capsys.disabled():
        print(f"\ncanaries: {CASES:,} cases, seed {seed}")
    for first in range(0, CASES, CASES_A_BATCH):
        lines, hidden = [], []
        for at in range(CASES_A_BATCH):
            kind, encoding = rng.choice(KINDS), rng.choice(list(ENCODINGS))
            text, secret = secret_of(kind, rng)
            spelled = ENCODINGS[encoding](text)
            what, data = rng.choice(originals)
            event = {"type": what, "timestamp": T0 + first + at, "data": put(data, spelled, rng)}
            lines.append(json.dumps(event, ensure_ascii=rng.random() < 0.3, separators=(",", ":")).encode())
            hidden.append((kind, encoding, secret, base64.b64encode(f"some note {text}".encode()).decode()[:-4], event))
        raw = batch(f"b{first}", *lines)
        page, canary = hidden[0][2], secret_of("query", rng)
        raw = msgspec.structs.replace(
            raw, metadata=Metadata(url=canary[0], user_agent=canary[0]), client_version=canary[0]
        )
        outcome = step(None, raw, Where("replay.batches", 0, first, T0 + first), Rules())
        assert outcome.state is not None
        left = msgspec.json.encode(outcome.clean) + outcome.clean.payload + msgspec.json.encode(outcome.sessions)
        seen = opened(left + encode_state(outcome.state))
        assert canary[1] not in seen, seed
        for kind, encoding, secret, encoded, event in hidden:
            assert secret not in seen, (seed, kind, encoding, event)
            assert encoding != "base64" or encoded not in seen, (seed, kind, encoding, event)
        assert page
