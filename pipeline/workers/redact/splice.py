"""The quick way through raw JSON: find what the gate hits, redact only the strings around the hits, leave all other bytes.

What it does must equal the full walk (`tree`) of the decoded value. Where the bytes alone do not tell what the walk would do
(an object under a sensitive key, an unusual order of members, an escaped name) the value is left to the walk.

    {"type":2,"tagName":"a","attributes":{"href":"https://…?token=abc"},…
                                                  ↑ hit: find the string around it, decode, redact, put back

`at` always stands outside of strings. The search goes on one byte before it: a pattern may need the character before a
secret, and that may be a quote.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import msgspec

from pipeline.workers.redact.rules import Redaction
from pipeline.workers.redact.text import redact_text
from pipeline.workers.redact.tree import STYLE_ATTRIBUTES, Walk, wipe
from pipeline.workers.redact.typed import TypedBook

_QUOTE = b'"'
_KEY_FOLLOWS = re.compile(rb"\s*:")
_KEY_BEFORE = re.compile(rb'"([^"\\]*)"\s*:\s*\Z')
_BACKSLASH = ord("\\")
_BEFORE_STRING, _AFTER_STRING = frozenset(b":,[{ \t\r\n"), frozenset(b":,]} \t\r\n")
_CHARS = rb'[^"\\]*(?:\\.[^"\\]*)*'
_REST = re.compile(_CHARS + b'"')
_KEY_CHARS_MAX = 64
_NUMBER = re.compile(rb"-?[0-9][0-9.eE+-]*")
_TAG = re.compile(rb'"tagName"\s*:\s*"(?:input|textarea|select)"', re.IGNORECASE)
_ATTRIBUTES = b'"attributes"'
_ATTRIBUTES_OF = b'"attributes":{'
_FLAT = re.compile(rb'"attributes":\{(?:"%b":(?:"%b"|[a-z0-9.-]+),?)*\}' % (_CHARS, _CHARS))
"""An object of attributes whose values are no objects."""
_STYLE_NAMES = frozenset(each.encode() for each in STYLE_ATTRIBUTES)
_TELLING = frozenset([b"tagName", b"type", b"name", b"id", b"autocomplete", b"placeholder", b"aria-label", b"source"])
"""Members that decide how others are treated: their values must be plain to see."""
_ELEMENT = b'{"type":2,'
_TEXT_NODE = b'{"type":3,"textContent":'
_STYLE_TEXT = b',"isStyle":true'
_STYLE_TAG = re.compile(rb'"tagName"\s*:\s*"(?i:style)"')
_ODD_STYLE_TAG = re.compile(rb'(?<!\{"type":2,)"tagName"\s*:\s*"(?i:style)"')
_ID_ONLY = re.compile(rb',"id":-?[0-9]+\}')
_SIMPLE = re.compile(rb'\s*:\s*("%b"|[^\s",\[\]{}]+)' % _CHARS)
_STYLE_CHARS_MIN = 256
_NODE = re.compile(rb'(?<!"attributes":)\{(?:"type":2,"tagName":"[^"]*"|"id":[0-9]+),\Z')
"""What stands before the attributes of a node, as rrweb writes it."""
_NODE_CHARS_MAX = 128

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_scan = json.JSONDecoder().raw_decode


class _Unsure(Exception):
    """The bytes alone do not tell what the walk would do."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What to put in place of data[start:end], and what it counts as."""

    start: int
    end: int
    left: bytes
    counts: Counter[str]


class _Splice:
    """JSON values, one a line, on their way through."""

    __slots__ = ("_book", "_data", "_latin", "_rules", "pieces", "unsure")

    def __init__(self, data: bytes, rules: Redaction, book: TypedBook | None) -> None:
        self._data, self._rules, self._book = data, rules, book
        self._latin = ""
        self.pieces: list[_Piece] = []
        self.unsure: list[int] = []
        """Values that the walk must decide."""

    def run(self, find: Any, hit: Any, ends: list[int]) -> None:
        """`hit` is the first; `ends` are the positions after the values' line breaks."""
        data, at = self._data, 0
        while hit is not None:
            start, end = hit.span()
            first = start if start > at else at
            try:
                opening = self._opening(at, first)
                if opening < 0:
                    opening = data.find(_QUOTE, first, end)
                at = self._number(first) if opening < 0 else self._string(opening)
            except _Unsure:
                value = bisect_right(ends, first)
                self.unsure.append(value)
                at = ends[value]
                if at >= len(data):
                    return
            hit = find(data, at - 1)

    def _opening(self, at: int, position: int) -> int:
        """Where the string begins in which the position lies; -1 outside of strings. `at` lies outside.

        The nearest quote before tells by its neighbours: one that opens follows a sign of structure, one that closes is
        followed by one. Where both are so, all quotes from `at` on are counted.
        """
        data = self._data
        quote = data.rfind(_QUOTE, at, position)
        while quote > at and self._is_escaped(quote):
            quote = data.rfind(_QUOTE, at, quote)
        if quote < 0:
            return -1
        opens = quote == 0 or data[quote - 1] in _BEFORE_STRING
        if opens and data[quote + 1] in _AFTER_STRING:
            opens = len(_REST.findall(data, at, quote)) % 2 == 0
        return quote if opens else -1

    def _is_escaped(self, quote: int) -> bool:
        before = quote
        while before and self._data[before - 1] == _BACKSLASH:
            before -= 1
        return (quote - before) % 2 == 1

    def _string(self, opening: int) -> int:
        found = _REST.match(self._data, opening + 1)
        if found is None:
            raise _Unsure
        closing = found.end() - 1
        if _KEY_FOLLOWS.match(self._data, closing + 1):
            return self._key(opening, closing)
        return self._text(opening, closing)

    def _number(self, start: int) -> int:
        """A hit outside of strings: a number, which only the walk may judge where it is long."""
        found = _NUMBER.search(self._data, start)
        if found is None or len(found[0]) > 12:
            raise _Unsure
        return found.end()

    def _key(self, opening: int, closing: int) -> int:
        raw = self._data[opening + 1 : closing]
        if b"\\" in raw:
            raise _Unsure
        if not self._rules.is_plain_key(raw.decode()):
            return self._sensitive(raw.decode(), closing + 1)
        if raw == b"tagName" and _TAG.match(self._data, opening):
            return self._element(opening)
        return closing + 1

    def _sensitive(self, name: str, at: int) -> int:
        """A key that tells of a secret; the walk looks at what is more than one value, or at a key that is one itself."""
        if not self._rules.is_sensitive(name) or redact_text(name, self._rules, Counter()) != name:
            raise _Unsure
        found = _SIMPLE.match(self._data, at)
        if found is None:
            raise _Unsure
        start, end = found.span(1)
        value = _decode(self._data[start:end])
        own: Counter[str] = Counter()
        left = wipe(value, self._rules, own)
        if own:
            self.pieces.append(_Piece(start, end, _encode(left), own))
        return end

    def _element(self, opening: int) -> int:
        """A form field with all that is in it goes through the walk, and only it."""
        start = opening - 1 if self._data[opening - 1 : opening] == b"{" else opening - len(_ELEMENT)
        if start < 0 or (start != opening - 1 and not self._data.startswith(_ELEMENT, start)):
            raise _Unsure
        if self._data.endswith(b'"attributes":', 0, start):
            raise _Unsure
        self._latin = self._latin or self._data.decode("latin-1")  # one character a byte: positions stay
        end = _scan(self._latin, start)[1]
        own: Counter[str] = Counter()
        left = Walk(self._rules, own, book=self._book).value(_decode(self._data[start:end]))
        if own:
            self.pieces.append(_Piece(start, end, _encode(left), own))
        return end

    def _text(self, opening: int, closing: int) -> int:
        raw = self._data[opening + 1 : closing]
        if raw in self._rules.plain_texts:
            return closing + 1
        if len(raw) >= _STYLE_CHARS_MIN and self._is_style(opening, closing):
            return closing + 1
        text = _decode(self._data[opening : closing + 1]) if b"\\" in raw else raw.decode()
        own: Counter[str] = Counter()
        left = redact_text(text, self._rules, own)
        if b"\\" in raw and self._name(opening) in _TELLING:
            raise _Unsure
        if left == text:
            self._rules.remember_plain(raw)
        else:
            self._check_place(opening, closing)
            self.pieces.append(_Piece(opening, closing + 1, _encode(left), own))
        return closing + 1

    def _name(self, opening: int) -> bytes:
        """The key of the value that opens here; empty in a list."""
        first = max(opening - _KEY_CHARS_MAX, 0)
        found = _KEY_BEFORE.search(self._data[first:opening])
        if found is None:
            if first and self._data[opening - 1 : opening] not in (b"[", b","):
                raise _Unsure  # a longer key, or space before the value
            return b""
        return self._data[first + found.start(1) : first + found.end(1)]

    def _is_style(self, opening: int, closing: int) -> bool:
        """Style text that can be told in the form that rrweb writes."""
        name = self._name(opening)
        if name in _STYLE_NAMES:
            return self._in_attributes(opening, closing)
        before = opening - len(_TEXT_NODE)
        return (
            name == b"textContent"
            and self._data.startswith(_STYLE_TEXT, closing + 1)
            and self._data.startswith(_TEXT_NODE, max(before, 0))
            and not self._data.endswith(b'"attributes":', 0, max(before, 0))
        )

    def _in_attributes(self, opening: int, closing: int) -> bool:
        start = self._data.rfind(_ATTRIBUTES_OF, 0, opening)
        if start < 0 or _NODE.search(self._data[max(start - _NODE_CHARS_MAX, 0) : start]) is None:
            return False
        found = _FLAT.match(self._data, start)
        return found is not None and found.end() > closing

    def _check_place(self, opening: int, closing: int) -> None:
        """What would be changed must not be style, whose text stays."""
        name = self._name(opening)
        if name in _STYLE_NAMES or (name == b"textContent" and not self._is_plain_text_node(opening, closing)):
            raise _Unsure

    def _is_plain_text_node(self, opening: int, closing: int) -> bool:
        """A text node as rrweb writes it, of no style element: that would be the nearest element before."""
        before = opening - len(_TEXT_NODE)
        if before < 0 or not self._data.startswith(_TEXT_NODE, before) or not _ID_ONLY.match(self._data, closing + 1):
            return False
        if self._data.endswith(b'"attributes":', 0, before):
            return False
        tag = self._data.rfind(b'"tagName"', 0, before)
        if tag >= 0 and _STYLE_TAG.match(self._data, tag):
            return False
        return _ODD_STYLE_TAG.search(self._data, closing) is None  # an element may name its tag after its children


def splice(
    values: Sequence[bytes], rules: Redaction, counts: Counter[str], book: TypedBook | None = None
) -> list[tuple[int, bytes | None]]:
    """(index, the value as it may leave) of those raw JSON values that change; None where the full walk must decide: nothing
    of that value is counted then. With a `book` give one value."""
    data = b"\n".join(values)
    find = rules.gates.find_field if _ATTRIBUTES in data else rules.gates.find
    hit = find(data)
    if hit is None:
        return []
    mark = book.mark() if book is not None else None
    ends = list(accumulate([len(each) + 1 for each in values]))
    way = _Splice(data, rules, book)
    way.run(find, hit, ends)
    if book is not None and mark is not None and (way.unsure or book.names_again(mark, data)):
        book.go_back(mark)
        return [(0, None)]
    changed: list[tuple[int, bytes | None]] = [(value, None) for value in way.unsure]
    for value, pieces in groupby(way.pieces, lambda piece: bisect_right(ends, piece.start)):
        if value not in way.unsure:
            changed.append(
                (value, _put(bytes(values[value]), ends[value] - len(values[value]) - 1, list(pieces), counts))
            )
    return changed


def _put(value: bytes, offset: int, pieces: list[_Piece], counts: Counter[str]) -> bytes:
    parts: list[bytes] = []
    at = 0
    for piece in pieces:
        parts += (value[at : piece.start - offset], piece.left)
        at = piece.end - offset
        counts.update(piece.counts)
    parts.append(value[at:])
    return b"".join(parts)
