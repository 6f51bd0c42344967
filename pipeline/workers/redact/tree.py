"""The full walk over decoded JSON: every string and key, rrweb's nodes and form fields, sensitive keys wiped.

What is style or geometry is not for redaction: a redacted replay still plays. Depth is bounded: what is nested deeper is
refused (RecursionError, which the chain makes a dead letter), never passed on unread.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.workers.redact.detectors import is_card, is_redacted
from pipeline.workers.redact.names import is_personal
from pipeline.workers.redact.rules import Redaction
from pipeline.workers.redact.text import redact_text
from pipeline.workers.redact.typed import TypedBook

DEPTH_MAX = 300
"""Levels of JSON, two for an element in a DOM snapshot; the interpreter's own limit is above 400."""
STYLE_ATTRIBUTES = frozenset(["style", "_cssText", "d", "points", "viewBox", "transform", "rr_dataURL"])
"""Attributes of an rrweb node that are style, geometry or a picture."""

FIELD_TAGS = frozenset(["input", "textarea", "select"])
_FIELD_NAMES = ("type", "name", "id", "autocomplete", "placeholder", "aria-label")
_CARD_INT_MIN = 10**12


class Walk:
    """One event's walk. `book` is given where the event may make form fields known (rrweb), or holds names whose values
    were masked while they were typed."""

    def __init__(
        self, rules: Redaction, counts: Counter[str], *, book: TypedBook | None = None, text_depth: int = 0
    ) -> None:
        self._rules, self._counts, self._book, self._text_depth = rules, counts, book, text_depth

    def value(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            return redact_text(value, self._rules, self._counts, self._text_depth)
        if depth > DEPTH_MAX:
            raise RecursionError
        if isinstance(value, dict):
            return self._object(value, depth + 1)
        if isinstance(value, list):
            return [self.value(each, depth + 1) for each in value]
        if isinstance(value, int) and value >= _CARD_INT_MIN and is_card(str(value)):
            return self._rules.apply("card", str(value), self._counts)
        return value

    def _object(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        tag, attributes = value.get("tagName"), value.get("attributes")
        tag = tag.lower() if isinstance(tag, str) else ""
        hidden = isinstance(attributes, dict) and self._is_sensitive_field(tag, attributes, value.get("id"))
        known = self._book is not None and self._book.knows(value.get("id"))
        style = value.get("isStyle") is True or (tag == "style" and isinstance(attributes, dict))
        out: dict[str, Any] = {}
        is_plain = self._rules.is_plain_key
        for key, inner in value.items():
            plain = is_plain(key)
            name = key if plain else redact_text(key, self._rules, self._counts, self._text_depth)
            if key == "attributes" and isinstance(inner, dict):
                out[name] = self._attributes(inner, depth + 1, hidden=hidden or known)
            elif key == "textContent" and style:
                out[name] = inner
            elif key == "childNodes" and isinstance(inner, list) and (hidden or style):
                out[name] = self._children(inner, depth + 1, hidden=hidden)
            elif known and key in ("value", "textContent") and isinstance(inner, str):
                out[name] = self._mask(inner)
            elif not plain and self._rules.is_sensitive(key):
                out[name] = wipe(inner, self._rules, self._counts)
            else:
                out[name] = self.value(inner, depth)
        return out

    def _attributes(self, value: dict[str, Any], depth: int, *, hidden: bool) -> dict[str, Any]:
        out: dict[str, Any] = {}
        is_plain = self._rules.is_plain_key
        for key, inner in value.items():
            plain = is_plain(key)
            name = key if plain else redact_text(key, self._rules, self._counts, self._text_depth)
            if key in STYLE_ATTRIBUTES:
                out[name] = inner
            elif hidden and key == "value" and isinstance(inner, str):
                out[name] = self._mask(inner)
            elif not plain and self._rules.is_sensitive(key):
                out[name] = wipe(inner, self._rules, self._counts)
            else:
                out[name] = self.value(inner, depth)
        return out

    def _children(self, children: list[Any], depth: int, *, hidden: bool) -> list[Any]:
        """Of a style element, which has text only (with elements in it, it is none), or of a sensitive field."""
        if not hidden and any(isinstance(each, dict) and "tagName" in each for each in children):
            return [self.value(each, depth) for each in children]
        return [self._child(each, depth, hidden=hidden) for each in children]

    def _child(self, child: Any, depth: int, *, hidden: bool) -> Any:
        """A text node of a style element (its text stays) or of a sensitive field (its text is masked)."""
        if not isinstance(child, dict) or not isinstance(child.get("textContent"), str):
            return self.value(child, depth)
        left = self._object({**child, "textContent": ""}, depth)
        if hidden and self._book is not None and isinstance(child.get("id"), int):
            self._book.know_node(child["id"])
        left["textContent"] = self._mask(child["textContent"]) if hidden else child["textContent"]
        return left

    def _is_sensitive_field(self, tag: str, attributes: dict[str, Any], node: Any) -> bool:
        if tag not in FIELD_TAGS:
            return False
        names = [each for each in (attributes.get(key) for key in _FIELD_NAMES) if isinstance(each, str)]
        if not any(self._rules.is_sensitive(each) or is_personal(each) or each == "tel" for each in names):
            return False
        if self._book is not None and isinstance(node, int):
            self._book.know_node(node)
        return True

    def _mask(self, value: str) -> str:
        return value if not value or is_redacted(value) else self._rules.apply("field", value, self._counts, "mask")


def wipe(value: Any, rules: Redaction, counts: Counter[str]) -> Any:
    """What stands under a sensitive key: nothing of it is told but that it was there."""
    if value is None or isinstance(value, bool) or value == "":
        return value
    if isinstance(value, str) and is_redacted(value):
        return value
    return rules.apply("key", value if isinstance(value, str) else str(value), counts)
