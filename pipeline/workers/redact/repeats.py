"""Where the page itself says again what was typed and masked: the form's submit, the URL of a GET form, a console line.

Within the batch the masked values are at hand: whole words equal to one are masked wherever a text is told. Later batches
know the names of the masked fields only (`typed` keeps their hashes): members of a submitted form and parameters of a
page's URL that have such a name are masked, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import msgspec

from pipeline.model.events import SessionEvent
from pipeline.workers.redact.detectors import is_redacted
from pipeline.workers.redact.rules import Redaction
from pipeline.workers.redact.tree import DEPTH_MAX
from pipeline.workers.redact.typed import TypedBook

WORD_CHARS_MIN = 4
"""A shorter value would be found by chance in texts that do not tell it."""


_FORM = "submit"
_FORMS_AND_PAGES: frozenset[str | int] = frozenset([_FORM, "navigation", "initial_state", 4])
_STRUCTURE = frozenset(["target", "tagName", "inputType", "id", "className", "class", "type", "name", "style", "_cssText",
                        "plugin", "tag", "level", "for", "href", "src"])  # fmt: skip
"""Members whose strings say what stands where, not what it says; URLs are looked into by their parameters' names."""
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&#;\s]{1,80})=([^&#;\s]+)")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Repeats:
    """`words`: values that were masked in this batch."""

    def __init__(self, words: Iterable[str], book: TypedBook, rules: Redaction, counts: Counter[str]) -> None:
        self._book, self._rules, self._counts = book, rules, counts
        self._spellings: set[str] = set()
        for word in words:
            if len(word) >= WORD_CHARS_MIN and not is_redacted(word):
                self._spellings.add(word)
                if not word.isalnum():
                    self._spellings.update((quote(word, safe=""), quote_plus(word), _encode(word)[1:-1].decode()))

    def mask(self, events: list[SessionEvent]) -> None:
        """Puts in place of each event that says a masked value again one that does not. Raises msgspec.DecodeError,
        RecursionError."""
        named = _FORMS_AND_PAGES if self._book.has_names else frozenset()
        told = b"\n".join([event.data for event in events]) if self._spellings else b""
        spelled = _is_spelled_oddly(told)
        found = [each for each in self._spellings if spelled or each.encode("utf-8", "surrogatepass") in told]
        if not found and named.isdisjoint([event.type for event in events]):
            return
        word = _words(found)
        for index, event in enumerate(events):
            by_name = event.type in named
            by_word = event.type != "input" and bool(found) and _may_say(bytes(event.data), found)
            if by_name or by_word:
                events[index] = self._masked(event, by_name=by_name, word=word if by_word else None)

    def _masked(self, event: SessionEvent, *, by_name: bool, word: re.Pattern[str] | None) -> SessionEvent:
        data = was = _decode(event.data)
        if by_name and isinstance(data, dict):
            data = self._form(data) if event.type == _FORM else self._page(data)
        if word is not None:
            data = _strings(data, lambda text: word.sub(lambda found: self._mask(found[0]), text), 0)
        return event if data == was else SessionEvent(event.type, event.timestamp, msgspec.Raw(_encode(data)))

    def url(self, url: str) -> str:
        """A page's URL with the parameters masked that have a masked field's name."""
        return _PARAMETER.sub(self._parameter, url) if self._book.has_names else url

    def _parameter(self, found: re.Match[str]) -> str:
        if is_redacted(found[2]) or not self._book.is_told_name(unquote(found[1])):
            return found[0]
        return f"{found[1]}={self._mask(unquote(found[2]))}"

    def _page(self, data: dict[str, Any]) -> dict[str, Any]:
        return {key: self.url(each) if key in ("url", "href") and isinstance(each, str) else each
                for key, each in data.items()}  # fmt: skip

    def _form(self, data: dict[str, Any]) -> dict[str, Any]:
        form = data.get("formData")
        if not isinstance(form, dict):
            return data
        return {**data, "formData": {key: self._member(key, each) for key, each in form.items()}}

    def _member(self, key: str, value: Any) -> Any:
        if not isinstance(value, str) or not value or is_redacted(value) or not self._book.is_told_name(key):
            return value
        return self._mask(value)

    def _mask(self, value: str) -> str:
        return self._rules.apply("typed", value, self._counts, "mask")


def _is_spelled_oddly(data: bytes) -> bool:
    """JSON may write any character as an escape. One byte is looked for first: that is many times faster than two."""
    return b"\\" in data and (b"\\u" in data or b"\\/" in data)


def _may_say(data: bytes, spellings: list[str]) -> bool:
    return _is_spelled_oddly(data) or any(each.encode("utf-8", "surrogatepass") in data for each in spellings)


def _words(found: list[str]) -> re.Pattern[str]:
    """Any of these where it stands as a whole word, the longest first."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(found, key=len, reverse=True)))})(?!\w)")


def _strings(value: Any, change: Callable[[str], str], depth: int) -> Any:
    if isinstance(value, str):
        return change(value)
    if depth > DEPTH_MAX:
        raise RecursionError
    if isinstance(value, dict):
        return {key: each if key in _STRUCTURE and isinstance(each, str) else _strings(each, change, depth + 1)
                for key, each in value.items()}  # fmt: skip
    if isinstance(value, list):
        return [_strings(each, change, depth + 1) for each in value]
    return value
