"""The YAML file of rules:

    methods: {email: hash, phone: mask}           # replace | mask | hash | remove | keep; a kind of the table, key, password, field or typed
    keys: {sensitive: [customer_no], allowed: [token_type]}
    patterns:
      - {kind: employee, pattern: 'E-[0-9]{6}', contains: E-, method: mask}
    allow:
      - {kind: email, pattern: 'support@example\\.com'}
    tenants:
      acme: {methods: {email: remove}}            # the same members; added to those above, its methods first

`contains` is a literal that every match of a pattern has; without it every event is read whole. What does not compile
stops the start with file and line.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.errors import ConfigurationError
from pipeline.workers.redact.detectors import DETECTORS, KEY_GATE, Detector
from pipeline.workers.redact.gates import Gates
from pipeline.workers.redact.rules import ALL_KINDS, METHODS, Redaction, RuleBook

_MEMBERS = ("methods", "keys", "patterns", "allow")
_WORD = re.compile(r"[A-Za-z0-9_ .:-]{1,64}", re.ASCII)


class _Reader:
    """Reads nodes of a YAML document; complains with file and line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wrong(self, line: int, what: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path} line {line}: {what}")

    def line(self, node: Any) -> int:
        return int(node.start_mark.line) + 1

    def members(self, node: Any, names: tuple[str, ...] | None) -> dict[str, tuple[Any, Any]]:
        """name → (its node, its value's node)."""
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(self.line(node), "a mapping is wanted")
        found = {}
        for key, value in node.value:
            if names is not None and key.value not in names:
                raise self.wrong(self.line(key), f"one of {', '.join(names)} is wanted")
            found[str(key.value)] = (key, value)
        return found

    def items(self, node: Any) -> list[Any]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(self.line(node), "a list is wanted")
        return list(node.value)

    def text(self, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.wrong(self.line(node), "a text is wanted")
        return str(node.value)

    def word(self, node: Any) -> str:
        if _WORD.fullmatch(self.text(node)) is None:
            raise self.wrong(self.line(node), "1 to 64 characters of A-Z a-z 0-9 _ . : - and space are wanted")
        return self.text(node)

    def pattern(self, node: Any) -> re.Pattern[str]:
        try:
            return re.compile(self.text(node), re.ASCII)
        except re.error as error:
            raise self.wrong(self.line(node), f"the pattern does not compile: {error.msg}") from None

    def method(self, node: Any) -> Any:
        if self.text(node) not in METHODS:
            raise self.wrong(self.line(node), f"a method is one of {', '.join(METHODS)}")
        return node.value


def load(path: Path, master_key: Callable[[], bytes]) -> RuleBook:
    """Raises ConfigurationError with file and line. `master_key` is called only where a rule hashes; a tenant's key is
    derived from it."""
    reader = _Reader(path)
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark.line + 1 if error.problem_mark else 1
        raise reader.wrong(at, f"not YAML: {error.problem}") from None
    if root is None:
        return RuleBook()
    members = reader.members(root, (*_MEMBERS, "tenants"))
    tenants = reader.members(members.pop("tenants")[1], None) if "tenants" in members else {}
    common = _Draft(reader).add(members)
    return RuleBook(
        common.compiled("", master_key),
        {
            tenant: _Draft(reader, common).add(reader.members(node, _MEMBERS)).compiled(tenant, master_key)
            for tenant, (_, node) in tenants.items()
        },
    )


class _Draft:
    """Rules while they are read."""

    def __init__(self, reader: _Reader, common: _Draft | None = None) -> None:
        self._reader = reader
        self.methods: dict[str, Any] = dict(common.methods) if common else {}
        self.sensitive: set[str] = set(common.sensitive) if common else set()
        self.allowed: set[str] = set(common.allowed) if common else set()
        self.detectors: list[Detector] = list(common.detectors) if common else []
        self.allow: list[tuple[str, re.Pattern[str]]] = list(common.allow) if common else []

    def add(self, members: dict[str, tuple[Any, Any]]) -> _Draft:
        read = self._reader
        for node in read.items(members["patterns"][1]) if "patterns" in members else ():
            rule = read.members(node, ("kind", "pattern", "contains", "method"))
            if "kind" not in rule or "pattern" not in rule:
                raise read.wrong(read.line(node), "kind and pattern are wanted")
            kind, pattern = read.word(rule["kind"][1]), read.pattern(rule["pattern"][1])
            literal = _literal(read.word(rule["contains"][1])) if "contains" in rule else ""
            self.detectors.append(Detector(kind, pattern, literal))
            if "method" in rule:
                self.methods[kind] = read.method(rule["method"][1])
        for kind, (key, value) in (read.members(members["methods"][1], None) if "methods" in members else {}).items():
            self._known(kind, key)
            self.methods[kind] = read.method(value)
        keys = read.members(members["keys"][1], ("sensitive", "allowed")) if "keys" in members else {}
        for name, into in (("sensitive", self.sensitive), ("allowed", self.allowed)):
            into.update(read.word(each).lower() for each in (read.items(keys[name][1]) if name in keys else ()))
        for node in read.items(members["allow"][1]) if "allow" in members else ():
            rule = read.members(node, ("kind", "pattern"))
            if "pattern" not in rule:
                raise read.wrong(read.line(node), "a pattern is wanted")
            kind = read.text(rule["kind"][1]) if "kind" in rule else ""
            if kind:
                self._known(kind, rule["kind"][1])
            self.allow.append((kind, read.pattern(rule["pattern"][1])))
        return self

    def _known(self, kind: str, node: Any) -> None:
        if kind not in (*ALL_KINDS, *(each.kind for each in self.detectors)):
            raise self._reader.wrong(self._reader.line(node), f"no kind of this name; there are {', '.join(ALL_KINDS)}")

    def compiled(self, tenant: str, master_key: Callable[[], bytes]) -> Redaction:
        detectors = tuple(
            each for each in (*self.detectors, *DETECTORS) if self.methods.get(each.kind, "replace") != "keep"
        )
        hashes = "hash" in self.methods.values()
        return Redaction(
            methods=self.methods,
            detectors=detectors,
            sensitive=frozenset(self.sensitive),
            allowed=frozenset(self.allowed),
            allow=tuple(self.allow),
            hash_key=hmac.new(master_key(), tenant.encode(), hashlib.sha256).digest() if hashes else b"",
            gates=Gates([each.gate for each in detectors], _key_gates(self.sensitive)),
        )


def _key_gates(names: set[str]) -> list[str]:
    """Sensitive keys hit whatever detector is kept off."""
    return [KEY_GATE, *(f"(?i:{_literal(each)})" for each in sorted(names))]


def _literal(word: str) -> str:
    """For RE2, which knows no escaped space."""
    return re.escape(word).replace("\\ ", " ")
