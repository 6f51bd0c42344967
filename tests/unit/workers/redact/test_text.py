"""Strings: what is found in every spelling, and what only looks like a secret and stays."""

from __future__ import annotations

import base64
import json
from collections import Counter
from urllib.parse import quote

import pytest

from pipeline.workers.redact.rules import BUILT_IN
from pipeline.workers.redact.text import redact_text

#: (the text, the part of it that must not be left)
SECRETS = {
    "email": [("write to a.b@c.io", "a.b@c.io"), ("jane+x@mail.example.test", "jane")],
    "card": [
        (each, each)
        for each in ("4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005",
                     "3782 822463 10005", "6011000990139424", "3530111333300000")
    ],
    "iban": [
        (each, each)
        for each in ("DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "GB29 NWBK 6016 1331 9268 19",
                     "NO93 8601 1117 947")
    ] + [("AT61 1904 3002 3457 3201 IS MINE", "AT61 1904 3002 3457 3201")],
    "ssn": [("123-45-6789", "123-45-6789"), ("ssn 078-05-1120.", "078-05-1120")],
    "phone": [(each, each) for each in ("+12025550123", "(202) 555-0123", "202-555-0123", "020 7946 0958")],
    "jwt": [("eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "eyJzdWIi")],
    "bearer": [("Bearer abcdefgh12345", "abcdefgh12345"), ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz")],
    "cloud_key": [("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"), ("sk_live_abcdefghij12", "abcdefghij12")],
    "userinfo": [("https://u:hunter2@h.test/x", "hunter2")],
    "query": [("https://h.test/?token=hunter2&x=1", "hunter2"), ("/r?reset_password=hunter2", "hunter2")],
    "kv": [('{"password":"hunter2"', "hunter2"), ("'api_key': 'hunter2'", "hunter2"), ("password=hunter2", "hunter2")],
    "pem": [("-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----", "hunter2")],
}  # fmt: skip
NEAR_MISSES = [
    "$1,299.00", "1795448827781", "2026-11-23T15:47:05.578Z", "019a1234-5678-7123-8123-412345678901",
    "v1.2.3+20261123001", "order 4111-1111", "4111111111111112", "logo@2x.png", "npm i react@18.2.0", "user@localhost",
    "@media print", "LL-2099", "0x4111111111111111", "4111111111111111.5", "ISBN 978-3-16-148410-0", "12/31",
    "1.4142135623730951", "965.3350830078125", "build 20261123154705578", "EAN 4006381333931", "/?tokenizer=wordpiece",
    "Bearer of good news", "basic instructions", "session_idle_timeout_seconds=5", 'className: "card"', "network@1",
    "M12.5 34.2 L 4 5 Z", "the secretary=1", "max_tokens=4096", '{"className":"card","tokenizer":"x"}', "000-12-3456",
    "DE89 3704 0044 0532 0130 01", "https://h.test:8080/@scope/pkg", "Unexpected token: <", "10.0.0.1:8080", "#pin",
    "https://h.test/products/handmade-wool-carpet-large?id=38", "handleCheckoutButtonClick",
]  # fmt: skip
SPELLINGS = {
    "plain": lambda text: text,
    "in JSON": lambda text: json.dumps({"a": [text]}),
    "in JSON in JSON": lambda text: json.dumps(json.dumps({"a": text})),
    "percent-encoded": lambda text: "?next=" + quote(text, safe=""),
    "percent-encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "in base64": lambda text: base64.b64encode(f"noted: {text}".encode()).decode(),
    "in URL-safe base64": lambda text: "/p/" + base64.urlsafe_b64encode(json.dumps({"v": text}).encode()).decode(),
}


def opened(text: str) -> str:
    """The text with every spelling undone that the test put on."""
    runs = [base64.urlsafe_b64decode(run + "==") for run in text.replace("/p/", " ").replace("+", "-").split() if len(run) > 8
            and not set(run) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=/")]  # fmt: skip
    from urllib.parse import unquote

    return text + unquote(unquote(text)) + "".join(each.decode("latin-1") for each in runs)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", SECRETS)
def test_secret_of_every_kind_is_found_in_every_spelling(kind: str, spelling: str) -> None:
    for text, secret in SECRETS[kind]:
        left = redact_text(SPELLINGS[spelling](text), BUILT_IN, Counter())
        assert secret not in opened(left), text


@pytest.mark.parametrize("text", NEAR_MISSES)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    counts: Counter[str] = Counter()
    assert redact_text(text, BUILT_IN, counts) == text
    assert not counts


def test_precision_and_recall_over_the_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    found = [redact_text(text, BUILT_IN, Counter()) != text for pairs in SECRETS.values() for text, _ in pairs]
    wrong = [text for text in NEAR_MISSES if redact_text(text, BUILT_IN, Counter()) != text]
    recall, precision = sum(found) / len(found), sum(found) / (sum(found) + len(wrong))
    with capsys.disabled():
        print(f"\nredaction: recall {recall:.3f} of {len(found)} secrets, precision {precision:.3f} "
              f"against {len(NEAR_MISSES)} near misses")  # fmt: skip
    assert (recall, precision) == (1.0, 1.0)


def test_what_was_redacted_is_not_redacted_again() -> None:
    for pairs in SECRETS.values():
        for text, _ in pairs:
            once = redact_text(text, BUILT_IN, Counter())
            assert redact_text(once, BUILT_IN, Counter()) == once


def test_redaction_is_counted_by_kind_and_method() -> None:
    counts: Counter[str] = Counter()
    redact_text("a@b.io and c@d.io, 123-45-6789", BUILT_IN, counts)
    assert counts == {"email.replace": 2, "ssn.replace": 1}
