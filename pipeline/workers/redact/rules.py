"""What redaction goes by, compiled and frozen: which kind is treated how, which names are sensitive, the gates."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from pipeline.workers.redact.detectors import DETECTORS, KINDS, REDACTED, Detector
from pipeline.workers.redact.gates import Gates
from pipeline.workers.redact.names import is_sensitive

Method = Literal["replace", "mask", "hash", "remove", "keep"]
METHODS: tuple[Method, ...] = ("replace", "mask", "hash", "remove", "keep")
HASH_CHARS = 16
PLAIN_KEYS_MAX = 4_096
PLAIN_KEY_CHARS_MAX = 64
PLAIN_TEXTS_MAX = 8_192
PLAIN_TEXT_BYTES_MAX = 1_024

KIND_KEYS = ("key", "password", "field", "typed")
"""Kinds beside the detectors': a sensitive key, a password input, a field known by its name, another typed value."""
_GATES = Gates([each.gate for each in DETECTORS])


@dataclass(frozen=True)
class Redaction:
    """The rules of one tenant. `methods` has those that differ from `replace` (`mask` for field and typed values of rrweb
    inputs, whose length a replay shows)."""

    methods: dict[str, Method] = field(default_factory=dict)
    detectors: tuple[Detector, ...] = DETECTORS
    sensitive: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()
    allow: tuple[tuple[str, re.Pattern[str]], ...] = ()
    """(kind or empty for any, what a whole value may be to stay)."""
    hash_key: bytes = b""
    plain_keys: set[str] = field(default_factory=set, compare=False)
    """Keys met that are neither sensitive nor hold anything to redact; a cache, bounded."""
    plain_texts: set[bytes] = field(default_factory=set, compare=False)
    """Strings met, as they stand in JSON, that the gate hits and in which nothing is found; a cache, bounded."""
    gates: Gates = _GATES

    def is_plain_key(self, key: str) -> bool:
        """Whether a key may leave as it is and says nothing of its value."""
        if key in self.plain_keys:
            return True
        if self.gates.which(key.encode("utf-8", "surrogatepass")) or key[:1] in '{["' or self.is_sensitive(key):
            return False
        if len(self.plain_keys) >= PLAIN_KEYS_MAX:
            self.plain_keys.clear()
        if len(key) <= PLAIN_KEY_CHARS_MAX:
            self.plain_keys.add(key)
        return True

    def is_plain_text(self, text: str) -> bool:
        """Whether nothing was found in this text before; False where that is not remembered."""
        return text.encode("utf-8", "surrogatepass") in self.plain_texts

    def remember_plain_text(self, text: str) -> None:
        if '"' not in text and "\\" not in text:  # as it would stand in JSON
            self.remember_plain(text.encode("utf-8", "surrogatepass"))

    def remember_plain(self, raw: bytes) -> None:
        if len(raw) <= PLAIN_TEXT_BYTES_MAX:
            if len(self.plain_texts) >= PLAIN_TEXTS_MAX:
                self.plain_texts.clear()
            self.plain_texts.add(raw)

    def is_sensitive(self, name: str) -> bool:
        lower = name.lower()
        return lower not in self.allowed and (lower in self.sensitive or is_sensitive(name))

    def apply(self, kind: str, value: str, counts: Counter[str], default: Method = "replace") -> str:
        """What leaves in place of a secret; counted. `default` is the method where the rules name none for this kind."""
        method = self.methods.get(kind, default)
        if method == "keep" or (
            self.allow and any(only in ("", kind) and may.fullmatch(value) for only, may in self.allow)
        ):
            return value
        counts[f"{kind}.{method}"] += 1
        if method == "mask":
            return "*" * len(value)
        if method == "hash":
            return "hmac:" + hmac.new(self.hash_key, value.encode(), hashlib.sha256).hexdigest()[:HASH_CHARS]
        return "" if method == "remove" else REDACTED


BUILT_IN = Redaction()


@dataclass(frozen=True)
class RuleBook:
    """The rules for all, and those of tenants that have their own."""

    common: Redaction = BUILT_IN
    tenants: dict[str, Redaction] = field(default_factory=dict)

    def of(self, tenant: str) -> Redaction:
        return self.tenants.get(tenant, self.common)


ALL_KINDS = (*KINDS, *KIND_KEYS)
