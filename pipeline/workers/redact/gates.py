"""The gate in front of everything: RE2 automata over bytes as Latin-1, linear in time whatever the input.

Three views of the same patterns: `find` and `find_field` give the first hit in raw JSON from a position on (the second
knows form fields of rrweb nodes too), `which` says which patterns a decoded text may hold. A text in which `which` finds
nothing is left alone by every detector; raw JSON in which nothing is found holds no such text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import re2  # type: ignore[import-untyped]

PERCENT_GATE = "%[0-9A-Fa-f]{2}"
ESCAPE_GATE = r"\\[u/]"
BASE64_GATE = (
    "(?:[I-Za-f][CDEFGHSTUVWXijklmnyz0123][ABEFIJMNQRUVYZcdghklopstwx014589_/-][A-Za-z0-9+/_-]){3}"
    "[I-Za-f][CDEFGHSTUVWXijklmnyz0123][ABEFIJMNQRUVYZcdghklopstwx014589_/-]"
)
"""Eleven printable ASCII characters in base64: in each group of four the first three are of few values only
(byte 1 is 0x20 to 0x7f: first sextet 8 to 31; bits 4 to 7 of byte 2: 2 to 7; bit 7 of byte 3: 0)."""

FIELD_GATE = r'"tagName"\s*:\s*"(?i:input|textarea|select)"'
"""A form field in an rrweb node: its id matters to what is typed later."""

NESTED_FIELD_GATE = r'tagName\\+"(?:\s|\\+[nrt])*:(?:\s|\\+[nrt])*\\+"(?i:input|textarea|select)\\+"'
"""The same in JSON in a string."""

MEMORY_BYTES_MAX = 64 << 20


def _options() -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.never_capture = True
    options.max_mem = MEMORY_BYTES_MAX
    return options


def _finder(sources: Iterable[str]) -> Any:
    return re2.compile("|".join(f"(?:{each})" for each in sources).encode("latin-1"), _options())


class Gates:
    """Compiled once for each set of rules. The indices that `which` gives are those of `detectors`, then PERCENT and BASE64
    by name, then others that only say: look into it."""

    __slots__ = ("base64", "find", "find_field", "percent", "which")

    def __init__(self, detectors: Sequence[str], others: Sequence[str] = ()) -> None:
        """`detectors` and `others` are RE2 patterns; an empty one hits everything."""
        raw = (*detectors, PERCENT_GATE, BASE64_GATE, ESCAPE_GATE, NESTED_FIELD_GATE, *others)
        self.find = _finder(raw).search
        self.find_field = _finder((*raw, FIELD_GATE)).search
        every = re2.Set.SearchSet(_options())
        for source in (*raw, FIELD_GATE):
            every.Add(source.encode("latin-1"))
        every.Compile()
        self.which = every.Match
        self.percent, self.base64 = len(detectors), len(detectors) + 1
