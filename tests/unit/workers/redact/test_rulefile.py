"""The rule file: what it changes, whose it is, and that what does not compile names its line."""

from __future__ import annotations

import hmac
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from pipeline.errors import ConfigurationError
from pipeline.model.events import SessionEvent
from pipeline.workers.redact.events import Redactor
from pipeline.workers.redact.rulefile import load
from pipeline.workers.redact.rules import RuleBook
from pipeline.workers.redact.typed import Typed
from pipeline.workers.rules import hash_key

MASTER = b"m" * 32


def book(tmp_path: Path, text: str) -> RuleBook:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    return load(file, lambda: MASTER)


def left(rules: RuleBook, data: object, tenant: str = "acme") -> tuple[object, dict[str, int]]:
    counts: Counter[str] = Counter()
    event = SessionEvent("console", 1, msgspec.Raw(json.dumps(data).encode()))
    (out,) = Redactor(rules.of(tenant), Typed(), counts).clean([event])
    return json.loads(bytes(out.data)), dict(counts)


@pytest.mark.parametrize(
    ("method", "wanted"), [("replace", "[REDACTED]"), ("mask", "******"), ("remove", ""), ("keep", "a@b.io")]
)
def test_method_of_a_kind(tmp_path: Path, method: str, wanted: str) -> None:
    out, counts = left(book(tmp_path, f"methods: {{email: {method}}}"), "a@b.io")
    assert out == wanted
    assert counts == ({} if method == "keep" else {f"email.{method}": 1})


def test_equal_values_have_equal_hashes_within_a_tenant_only(tmp_path: Path) -> None:
    rules = book(tmp_path, "methods: {email: hash}\ntenants: {acme: {}, umbrella: {}}")
    key = hmac.digest(MASTER, b"acme", "sha256")
    wanted = "hmac:" + hmac.digest(key, b"a@b.io", "sha256").hex()[:16]
    assert left(rules, ["a@b.io", "to a@b.io"])[0] == [wanted, f"to {wanted}"]
    assert left(rules, "a@b.io", "umbrella")[0] != wanted


def test_keys_are_added_and_allowed(tmp_path: Path) -> None:
    rules = book(tmp_path, "keys:\n  sensitive: [Customer No]\n  allowed: [csrf_token]")
    out, counts = left(rules, {"customer no": 17, "csrf_token": "x", "token": "y"})
    assert out == {"customer no": "[REDACTED]", "csrf_token": "x", "token": "[REDACTED]"}
    assert counts == {"key.replace": 2}


@pytest.mark.parametrize("contains", ["", ", contains: E-"])
def test_extra_pattern_is_found_with_and_without_its_literal(tmp_path: Path, contains: str) -> None:
    rules = book(tmp_path, f"patterns:\n  - {{kind: employee, pattern: 'E-[0-9]{{6}}'{contains}, method: mask}}")
    assert left(rules, ["is E-123456"]) == (["is ********"], {"employee.mask": 1})


def test_allowed_value_stays_and_a_longer_one_does_not(tmp_path: Path) -> None:
    rules = book(tmp_path, "allow:\n  - {kind: email, pattern: 'support@example\\.test'}")
    assert left(rules, "support@example.test or mysupport@example.test")[0] == "support@example.test or [REDACTED]"


def test_tenant_overrides_what_is_common(tmp_path: Path) -> None:
    rules = book(tmp_path, "methods: {email: mask, ssn: mask}\ntenants:\n  acme: {methods: {email: remove}}")
    assert left(rules, "a@b.io 123-45-6789")[0] == " ***********"
    assert left(rules, "a@b.io", "other")[0] == "******"


@pytest.mark.parametrize(
    ("text", "line"),
    [("methods:\n  email: shred", 2), ("methods:\n\n  emial: hash", 3), ("rules: {}", 1), ("a: [", 1), ("- 1", 1),
     ("patterns:\n  - kind: x\n    pattern: '('", 3), ("patterns:\n  - kind: x", 2), ("allow:\n  - {pattern: '['}", 2),
     ("tenants:\n  acme:\n    method: {}", 3), ("keys:\n  sensitive: x", 2), ("allow:\n  - {kind: nil, pattern: x}", 2)],
)  # fmt: skip
def test_rule_that_does_not_compile_is_refused_with_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"rules\.yaml line {line}: "):
        book(tmp_path, text)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.yaml", lambda: MASTER)


def test_hash_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "redact.key"
    key = hash_key(path)
    assert len(key) == 32
    assert hash_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [("", ["[REDACTED]", "******", "******"]), ("methods: {password: mask}", ["*", "******", "******"]),
     ("methods: {typed: replace, field: replace}", ["[REDACTED]"] * 3)],
)  # fmt: skip
def test_method_of_typed_values(tmp_path: Path, rules: str, wanted: list[str]) -> None:
    events = [("input", {"target": "#a", "value": "x", "inputType": "password"}), ("click", {}),
              ("input", {"target": "#b", "value": "739251"}), ("click", {}),
              (3, {"source": 5, "text": "739251", "id": 1}), ("click", {})]  # fmt: skip
    raw = [SessionEvent(kind, at, msgspec.Raw(json.dumps(data).encode())) for at, (kind, data) in enumerate(events)]
    out = Redactor(book(tmp_path, rules).of("acme"), Typed(), Counter()).clean(raw)
    read = [json.loads(bytes(each.data)) for each in out[::2]]
    assert [each.get("value", each.get("text")) for each in read] == wanted
