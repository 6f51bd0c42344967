"""Typed text: what a field's values tell letter by letter, before any pattern knows them.

State between batches is which fields are sensitive, as rrweb node ids and 8-byte hashes of element paths: never typed text,
nor a hash of it, since typed text has so little entropy that a hash tells it. So a masked value that the page itself writes
elsewhere in a later batch (a console line, a text node) is found by its shape or its key only, not because it was typed.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass

import msgspec

NODES_MAX = 128
FIELDS_MAX = 64
_NAME = re.compile(r"""(?:\[name=["']?([^"'\]>]{1,80})["']?\]|#([^\s.#>\[\]:]{1,80}))[^>]*\Z""")
"""An element path's last step tells the field's name, or its id, which mostly is the same."""
_ID = re.compile(rb'"id"\s*:\s*(0|-?[1-9][0-9]{0,15})(?![0-9])')
_DIGITS = re.compile(r"[0-9+() ./-]*", re.ASCII)


class Typed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Sensitive fields of one window. `flooded`: there were more than can be remembered; all typing is masked. `names` are
    hashes of the names of fields whose values were masked, the latest FIELDS_MAX."""

    nodes: tuple[int, ...] = ()
    fields: tuple[bytes, ...] = ()
    flooded: bool = False
    names: tuple[bytes, ...] = ()


class TypedBook:
    """The same while a batch goes through."""

    def __init__(self, typed: Typed) -> None:
        self._typed = typed
        self.nodes = dict.fromkeys(typed.nodes)
        self._fields = dict.fromkeys(typed.fields)
        self.flooded = typed.flooded
        self._names = dict.fromkeys(typed.names)

    @property
    def has_names(self) -> bool:
        return bool(self._names)

    def tell_name(self, field: str | int) -> None:
        """A value of this field was masked; an rrweb node id has no name."""
        name = _name_hashed(field) if isinstance(field, str) else None
        if name is not None and name not in self._names:
            self._names[name] = None
            while len(self._names) > FIELDS_MAX:
                del self._names[next(iter(self._names))]

    def is_told_name(self, name: str) -> bool:
        return _hashed(name.lower()) in self._names

    def knows(self, node: object) -> bool:
        """Whether an rrweb node is a sensitive field; ids are whole numbers, `true` is none."""
        return type(node) is int and node in self.nodes

    def mark(self) -> tuple[int, bool]:
        """What `go_back` returns to: nodes are only added between the two."""
        return len(self.nodes), self.flooded

    def go_back(self, mark: tuple[int, bool]) -> None:
        while len(self.nodes) > mark[0]:
            self.nodes.popitem()
        self.flooded = mark[1]

    def names_again(self, mark: tuple[int, bool], data: bytes) -> bool:
        """Whether raw JSON has a node that became known since the mark more than once."""
        fresh = set(list(self.nodes)[mark[0] :])
        return bool(fresh) and sum([node in fresh for node in _ids(data)]) != len(fresh)

    def is_named_in(self, data: bytes) -> bool:
        """Whether raw JSON may be about a node that is known."""
        return bool(self.nodes) and not self.nodes.keys().isdisjoint(_ids(data))

    def know_node(self, node: int) -> None:
        self.flooded = self.flooded or (node not in self.nodes and len(self.nodes) >= NODES_MAX) or abs(node) >> 53 > 0
        if not self.flooded:
            self.nodes[node] = None

    def new_document(self) -> None:
        self.nodes.clear()

    def taint(self, field: str | int) -> None:
        if isinstance(field, int):
            self.know_node(field)
            return
        hashed = _hashed(field)
        self.flooded = self.flooded or (hashed not in self._fields and len(self._fields) >= FIELDS_MAX)
        if not self.flooded:
            self._fields[hashed] = None

    def is_tainted(self, field: str | int) -> bool:
        if self.flooded:
            return True
        return field in self.nodes if isinstance(field, int) else bool(self._fields) and _hashed(field) in self._fields

    @property
    def frozen(self) -> Typed:
        left = Typed(tuple(self.nodes), tuple(self._fields), self.flooded, tuple(self._names))
        return self._typed if left == self._typed else left


def _ids(data: bytes) -> list[int]:
    """The node ids that raw JSON tells, of those that can be known."""
    return [int(each) for each in _ID.findall(data)]


@functools.lru_cache(4096)
def _name_hashed(field: str) -> bytes | None:
    name = _NAME.search(field)
    return _hashed((name[1] or name[2]).lower()) if name else None


@functools.lru_cache(4096)
def _hashed(field: str) -> bytes:
    return hashlib.blake2b(field.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@dataclass(slots=True)
class Run:
    """Values typed into one field, one after another, at these indexes of the batch; `known` as the field was known
    sensitive; `closed` once something else happened after it; `told` is the last value that is masked for what it is, not
    for being at the batch's end."""

    field: str | int
    is_portable: bool
    known: str
    indexes: list[int]
    values: list[str]
    closed: bool = False
    told: str = ""


class Typing:
    """All that was typed in a batch, in order."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def see(self, index: int, field: str | int, value: str, known: str, *, is_portable: bool) -> None:
        last = self.runs[-1] if self.runs else None
        if last is not None and last.field == field and last.is_portable is is_portable:
            if last.known == known and not last.closed:
                last.indexes.append(index)
                last.values.append(value)
                return
        else:
            self.close()
        self.runs.append(Run(field, is_portable, known, [index], [value]))

    def close(self) -> None:
        """Something else happened: what was typed so far is whole."""
        for run in reversed(self.runs):
            if run.closed:
                return
            run.closed = True


def is_digits(value: str) -> bool:
    return _DIGITS.fullmatch(value) is not None and sum(each.isdigit() for each in value) >= 4


def to_mask(run: Run, book: TypedBook) -> list[tuple[int, str]]:
    """(index, value) of what must be masked of a run, when the book knows the fields that a detector's hit tainted: all of
    a sensitive field; else numbers, and what is still open at the batch's end, since nobody knows what it will be."""
    found = list(zip(run.indexes, run.values, strict=True))
    if run.known or book.is_tainted(run.field):
        run.told = run.values[-1]
    else:
        digits = [value for value in run.values if is_digits(value)]
        run.told = digits[-1] if digits else ""
        if run.closed:
            found = [(index, value) for index, value in found if is_digits(value)] if digits else []
    if run.told:
        book.tell_name(run.field)
    return found
