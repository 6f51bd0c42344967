"""A batch's events through redaction: the gate first, splices where it hits, the walk where a splice is unsure.

A gate over all small data joined costs microseconds and mostly says that there is nothing. Snapshots and mutations go alone
and in order: the form fields in them matter to later inputs. Typed values go by their own rule (`typed`).
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import msgspec

from pipeline.model.events import PORTABLE_TYPES, SessionEvent
from pipeline.workers.redact.detectors import is_redacted
from pipeline.workers.redact.names import is_personal, is_sensitive_target, last_step
from pipeline.workers.redact.repeats import Repeats
from pipeline.workers.redact.rules import Method, Redaction
from pipeline.workers.redact.splice import splice
from pipeline.workers.redact.text import redact_text
from pipeline.workers.redact.tree import Walk
from pipeline.workers.redact.typed import Run, Typed, TypedBook, Typing, to_mask

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_KNOWN_TYPES = frozenset(PORTABLE_TYPES)
_FULL_SNAPSHOT, _INCREMENT, _META = 2, 3, 4
_CLOSING = frozenset(["click", "submit", "navigation", "initial_state", _META])
_IN_SIGHT = frozenset([*_KNOWN_TYPES, *range(7)]) - _CLOSING - {"input", _FULL_SNAPSHOT, _INCREMENT}
"""Types of events whose data is only scanned."""
_MUTATION, _INTERACTION, _INPUT = 0, 2, 5
_CLOSING_INTERACTIONS = (2, 5, 6)  # click, focus, blur; no set, since what a client sends may not be hashable
_INPUT_TYPES_PERSONAL = frozenset(["email", "tel"])


class _Increment(msgspec.Struct):
    source: Any = None
    type: Any = None


_peek = msgspec.json.Decoder(_Increment).decode
_SOURCES = {b'{"source":%d,' % each: each for each in range(10)}
_INTERACTIONS = {b'"type":%d,' % each: each for each in range(10)}
_HEAD_BYTES = len(b'{"source":0,')
_TYPE_BYTES = _HEAD_BYTES + len(b'"type":0,')
_VALUE, _TEXT = b'"value"', b'"text"'
_SOURCE, _TYPE, _TAG_NAME = b'"source"', b'"type"', b'"tagName"'


class _TypedValue(msgspec.Struct):
    """What a portable input tells."""

    value: Any = None
    target: Any = None
    inputType: Any = None


class _TypedText(msgspec.Struct):
    """What an rrweb input tells."""

    text: Any = None
    id: Any = None


_read_value = msgspec.json.Decoder(_TypedValue).decode
_read_text = msgspec.json.Decoder(_TypedText).decode


@functools.lru_cache(4096)
def _known(kind: object, target: object) -> str:
    """What a portable input's type and element path tell of its value: `password`, `field` for one that is a secret or
    personal, or nothing."""
    kind = kind.strip().lower() if isinstance(kind, str) else ""
    if kind == "password":
        return "password"
    if kind in _INPUT_TYPES_PERSONAL or is_sensitive_target(target) or is_personal(last_step(target)):
        return "field"
    return ""


class Redactor:
    """One window's redaction while a batch goes through. `counts` gains `<kind>.<method>`."""

    def __init__(self, rules: Redaction, typed: Typed, counts: Counter[str], *, gated: bool = True) -> None:
        """`gated=False` decodes, walks and writes everything anew: what the gated way must equal."""
        self._rules, self._counts, self._gated = rules, counts, gated
        self._book = TypedBook(typed)

    @property
    def typed(self) -> Typed:
        return self._book.frozen

    def text(self, text: str) -> str:
        return redact_text(text, self._rules, self._counts)

    def page(self, url: str) -> str:
        """The URL of the page that a batch comes from, its patterns redacted already: a form that was sent by GET left the
        values of its fields in it."""
        return Repeats((), self._book, self._rules, self._counts).url(url) if self._book.has_names else url

    def clean(self, events: list[SessionEvent]) -> list[SessionEvent]:
        """The events as they may leave, in the same order. Raises msgspec.DecodeError or RecursionError where one that must
        be read cannot be: it is then poison, never passed on."""
        out = list(events)
        small: list[int] = []
        typing = Typing()
        for index, event in enumerate(events):
            kind = event.type
            if kind in _IN_SIGHT:
                small.append(index)
            elif kind == _INCREMENT:
                self._increment(index, out, typing, small)
            elif kind == "input":
                self._portable_input(index, out, typing)
                small.append(index)
            elif kind == _FULL_SNAPSHOT:
                typing.close()
                self._book.new_document()
                out[index] = self._in_order(event)
            else:
                if kind in _CLOSING:
                    typing.close()
                elif isinstance(kind, str):
                    out[index] = SessionEvent(self.text(kind), event.timestamp, event.data)
                small.append(index)
        if typing.runs:
            self._mask(typing.runs, out)
        self._joined(small, out)
        if typing.runs or self._book.has_names:
            words = {run.field: run.told for run in typing.runs if run.told}  # the last is the whole
            Repeats(words.values(), self._book, self._rules, self._counts).mask(out)
        return out

    def _joined(self, small: list[int], out: list[SessionEvent]) -> None:
        if not self._gated:
            for index in small:
                out[index] = self._walked(out[index], None)
            return
        values = [out[index].data for index in small]
        for at, left in splice(values, self._rules, self._counts):
            event = out[small[at]]
            out[small[at]] = self._walked(event, None) if left is None else _with(event, left)

    def _walked(self, event: SessionEvent, book: TypedBook | None) -> SessionEvent:
        return _with(event, _encode(Walk(self._rules, self._counts, book=book).value(_decode(event.data))))

    def _is_about_fields(self, data: bytes) -> bool:
        """Whether a mutation may make form fields known or be about one that is known: most are not, and go with the rest."""
        is_escaped = b"\\" in data and b"\\u" in data  # one byte is found much faster than two
        return not self._gated or is_escaped or _TAG_NAME in data or self._book.is_named_in(data)

    def _in_order(self, event: SessionEvent) -> SessionEvent:
        """A snapshot or a mutation."""
        data = bytes(event.data)
        if not self._gated or self._book.is_named_in(data):
            return self._walked(event, self._book)
        for _, left in splice([data], self._rules, self._counts, self._book):
            return self._walked(event, self._book) if left is None else _with(event, left)
        return event

    def _increment(self, index: int, out: list[SessionEvent], typing: Typing, small: list[int]) -> None:
        event = out[index]
        data = bytes(event.data)
        source, kind = _what(data)
        if source == _MUTATION:
            if self._is_about_fields(data):
                out[index] = self._in_order(event)
                return
        elif source == _INPUT:
            typed = _read_text(event.data)
            value, field = typed.text, typed.id
            if isinstance(value, str) and value and not is_redacted(value):
                field = field if isinstance(field, int) else repr(field)
                typing.see(index, field, value, "field" if self._book.is_tainted(field) else "", is_portable=False)
        elif source == _INTERACTION and kind in _CLOSING_INTERACTIONS:
            typing.close()
        small.append(index)

    def _portable_input(self, index: int, out: list[SessionEvent], typing: Typing) -> None:
        raw = out[index].data
        try:
            typed = _read_value(raw)
        except msgspec.ValidationError:  # no object
            _decode(raw)
            return
        value, target, kind = typed.value, typed.target, typed.inputType
        known = _known(kind if isinstance(kind, str) else "", target if isinstance(target, str) else "")
        if not isinstance(value, str):
            if known and value is not None:
                data = _decode(raw)
                data["value"] = self._rules.apply(known, str(value), self._counts)
                out[index] = _with(out[index], _encode(data))
        elif not value or is_redacted(value):
            out[index] = _with(out[index], _encode(_decode(raw)))
        else:
            typing.see(index, target if isinstance(target, str) else repr(target), value, known, is_portable=True)

    def _mask(self, runs: list[Run], out: list[SessionEvent]) -> None:
        """Masked values keep their length, but those of portable password and secret fields, which say what they are."""
        for field in self._telling(runs):
            self._book.taint(field)
        for run in runs:
            kind, member = run.known or "typed", _VALUE if run.is_portable else _TEXT
            default: Method = "replace" if run.is_portable and run.known else "mask"
            for index, value in to_mask(run, self._book):
                left = self._rules.apply(kind, value, self._counts, default)
                out[index] = _with(out[index], _put(bytes(out[index].data), member, value, left))

    def _telling(self, runs: list[Run]) -> list[str | int]:
        """The fields not known sensitive of whose values a detector would change any; the last, the whole, mostly tells."""
        unknown = [run for run in runs if not run.known and not self._book.is_tainted(run.field)]
        values = "\n".join([value for run in unknown for value in run.values])
        if not unknown or not self._rules.gates.which(values.encode("utf-8", "surrogatepass")):
            return []
        found: dict[str | int, None] = {}
        for run in unknown:
            if run.field not in found and any(self._is_secret(value) for value in reversed(run.values)):
                found[run.field] = None
        return list(found)

    def _is_secret(self, value: str) -> bool:
        return redact_text(value, self._rules, Counter()) != value


def _put(data: bytes, member: bytes, value: str, left: str) -> bytes:
    """The object with another text in a member, whose name is given in quotes; its bytes are changed in place where the
    member stands once."""
    was = member + b":" + _encode(value)
    if data.count(member) == 1 and was in data:
        return data.replace(was, member + b":" + _encode(left))
    whole = _decode(data)
    whole[member[1:-1].decode()] = left
    return _encode(whole)


def _what(data: bytes) -> tuple[Any, Any]:
    """(source, type) of an rrweb increment; told from its first bytes where they are as rrweb writes them: once, and no name
    is written with escapes, which rrweb never does."""
    source = _SOURCES.get(data[:_HEAD_BYTES])
    if source is not None and data.count(_SOURCE) == 1 and not (b"\\" in data and b"\\u" in data):
        if source != _INTERACTION:
            return source, None
        kind = _INTERACTIONS.get(data[_HEAD_BYTES:_TYPE_BYTES])
        if kind is not None and data.count(_TYPE) == 1:
            return source, kind
    try:
        seen = _peek(data)
    except msgspec.ValidationError:  # no object; or a number beyond every float, which may not hide typed text
        _decode(data)
        return None, None
    return seen.source, seen.type


def _with(event: SessionEvent, data: bytes) -> SessionEvent:
    return SessionEvent(event.type, event.timestamp, msgspec.Raw(data))
