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


def earlier(stem: str, schema_id: int) -> Any | None:
    """The schema of that stem as it was under an earlier pinned id: what older records were written with."""
    name = f"earlier/{stem}.{schema_id}"
    return parsed(name) if (directory() / f"{name}.avsc").is_file() else None


@functools.cache
def pinned_ids() -> dict[str, int]:
    """Subject without the topic prefix → schema id, for deployments without a registry."""
    found: dict[str, int] = json.loads((directory() / "ids.json").read_text())
    return found
