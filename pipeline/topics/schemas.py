"""The Avro schemas of `schemas/`, parsed once, and their pinned ids."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import fastavro

_PACKAGED = Path(__file__).parents[1] / "schemas"  # in a wheel
_CHECKOUT = Path(__file__).parents[2] / "schemas"  # in a source tree


def directory() -> Path:
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


@functools.cache
def text(stem: str) -> str:
    """The schema as written, docs and all: what a registry is given."""
    return (directory() / f"{stem}.avsc").read_text()


@functools.cache
def parsed(stem: str) -> Any:
    """The schema as fastavro wants it; parsing is the costly part, so it is done once."""
    return fastavro.parse_schema(json.loads(text(stem)))


@functools.cache
def pinned_ids() -> dict[str, int]:
    """Subject without the topic prefix → schema id, for deployments without a registry."""
    found: dict[str, int] = json.loads((directory() / "ids.json").read_text())
    return found
