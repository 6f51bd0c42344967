"""A batch's events through redaction: the gate first, the walk where it hits, typed values by their own rule.

A gate over all small data joined costs microseconds and mostly says that there is nothing. Where it hits it is asked event
by event; an event that hits is decoded, walked and written anew, so what leaves is what was read: a second member of the
same name hides nothing. Snapshots and mutations go alone and in order: the form fields in them matter to later inputs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from pipeline.model.events import PORTABLE_TYPES, SessionEvent
from pipeline.workers.redact.detectors import is_redacted
from pipeline.workers.redact.names import is_personal, is_sensitive_target, last_step
from pipeline.workers.redact.rules import Redaction
from pipeline.workers.redact.text import redact_text
from pipeline.workers.redact.tree import Walk
from pipeline.workers.redact.typed import Typed, TypedBook, Typing, close, resolve

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_KNOWN_TYPES = frozenset(PORTABLE_TYPES)
_CLOSING = frozenset(["click", "submit", "navigation", "initial_state"])
_FULL_SNAPSHOT, _INCREMENT, _META = 2, 3, 4
_MUTATION, _INTERACTION, _INPUT = 0, 2, 5
_CLOSING_INTERACTIONS = frozenset([2, 5, 6])  # click, focus, blur
_INPUT_TYPES_PERSONAL = frozenset(["email", "tel"])


class _Increment(msgspec.Struct):
    source: Any = None
    type: Any = None


_peek = msgspec.json.Decoder(_Increment).decode


class Redactor:
    """One window's redaction while a batch goes through. `counts` gains `<kind>.<method>`."""

    def __init__(self, rules: Redaction, typed: Typed, counts: Counter[str], *, gated: bool = True) -> None:
        """`gated=False` reads everything: what the gated way must equal."""
        self._rules, self._counts, self._gated = rules, counts, gated
        self._book = TypedBook(typed)

    @property
    def typed(self) -> Typed:
        return self._book.frozen

    def text(self, text: str) -> str:
        return redact_text(text, self._rules, self._counts)

    def clean(self, events: list[SessionEvent]) -> list[SessionEvent]:
        """The events as they may leave, in the same order. Raises msgspec.DecodeError or RecursionError where one that must
        be read cannot be: it is then poison, never passed on."""
        out = list(events)
        small: list[int] = []
        items: list[Typing] = []
        for index, event in enumerate(events):
            kind = event.type
            if kind == "input":
                self._portable_input(index, out, items)
            elif kind == _INCREMENT:
                self._increment(index, out, items, small)
                continue
            elif kind == _FULL_SNAPSHOT:
                close(items)
                self._book.new_document()
                out[index] = self._in_order(event)
                continue
            elif kind in _CLOSING or kind == _META:
                close(items)
            if isinstance(kind, str) and kind not in _KNOWN_TYPES:
                out[index] = SessionEvent(self.text(kind), event.timestamp, event.data)
            small.append(index)
        self._mask(items, out)
        self._joined(small, out)
        return out

    def _joined(self, small: list[int], out: list[SessionEvent]) -> None:
        match = self._rules.gate.Match
        if self._gated and not match(b"\n".join([out[index].data for index in small])):
            return
        for index in small:
            event = out[index]
            if not self._gated or match(bytes(event.data)):
                out[index] = _with(event, Walk(self._rules, self._counts).value(_decode(event.data)))

    def _in_order(self, event: SessionEvent) -> SessionEvent:
        """A snapshot, or a mutation while no field is known or where it may touch one."""
        if self._gated and not self._rules.field_gate.Match(bytes(event.data)):
            return event
        return _with(event, Walk(self._rules, self._counts, book=self._book).value(_decode(event.data)))

    def _increment(self, index: int, out: list[SessionEvent], items: list[Typing], small: list[int]) -> None:
        event = out[index]
        try:
            seen = _peek(event.data)
        except msgspec.ValidationError:  # no object; or a number beyond every float, which may not hide typed text
            _decode(event.data)
            small.append(index)
            return
        if seen.source == _INPUT:
            data = _decode(event.data)
            value, field = data.get("text"), data.get("id")
            if isinstance(value, str) and value and not is_redacted(value):
                known = "field" if self._book.is_tainted(field if isinstance(field, int) else repr(field)) else ""
                self._see(items, Typing(index, field if isinstance(field, int) else repr(field), value, known))
        elif seen.source == _MUTATION:
            if self._book.nodes:
                out[index] = _with(event, Walk(self._rules, self._counts, book=self._book).value(_decode(event.data)))
            else:
                out[index] = self._in_order(event)
            return
        elif seen.source == _INTERACTION and seen.type in _CLOSING_INTERACTIONS:
            close(items)
        small.append(index)

    def _portable_input(self, index: int, out: list[SessionEvent], items: list[Typing]) -> None:
        data = _decode(out[index].data)
        if not isinstance(data, dict):
            return
        value, target, kind = data.get("value"), data.get("target"), data.get("inputType")
        kind = kind.strip().lower() if isinstance(kind, str) else ""
        known = ""
        if kind == "password":
            known = "password"
        elif is_sensitive_target(target) or is_personal(last_step(target)) or kind in _INPUT_TYPES_PERSONAL:
            known = "field"
        if not isinstance(value, str):
            if known and value is not None:
                out[index] = _with(out[index], {**data, "value": self._rules.apply(known, str(value), self._counts)})
            return
        if not value or is_redacted(value):
            out[index] = _with(out[index], data)
            return
        self._see(items, Typing(index, target if isinstance(target, str) else repr(target), value, known))

    @staticmethod
    def _see(items: list[Typing], item: Typing) -> None:
        if items and items[-1].field != item.field:
            close(items)
        items.append(item)

    def _is_secret(self, value: str) -> bool:
        return redact_text(value, self._rules, Counter()) != value

    def _mask(self, items: list[Typing], out: list[SessionEvent]) -> None:
        """Masked values keep their length, but those of portable password and secret fields, which say what they are."""
        for item, kind in resolve(items, self._book, self._is_secret):
            event = out[item.index]
            data = _decode(event.data)
            if event.type == "input":
                method = None if kind != "typed" else "mask"
                data["value"] = self._rules.apply(kind, item.value, self._counts, method)  # type: ignore[arg-type]
            else:
                data["text"] = self._rules.apply(kind, item.value, self._counts, "mask")
            out[item.index] = _with(event, data)


def _with(event: SessionEvent, data: Any) -> SessionEvent:
    return SessionEvent(event.type, event.timestamp, msgspec.Raw(_encode(data)))
