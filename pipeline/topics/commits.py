"""What a sink's commit on replay.clean remembers beside the offset: the mark, the highest source offset that is done."""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMMIT = re.compile(r"v1 epoch=(\d+) mark=(-?\d+)", re.ASCII)


@dataclass(frozen=True)
class Committed:
    """Where to go on reading replay.clean, and the mark at that place."""

    clean_offset: int
    mark: int


def commit_metadata(epoch: int, mark: int) -> str:
    """The text kept with a committed offset. The epoch guards against another life of the raw topic."""
    return f"v1 epoch={epoch} mark={mark}"


def read_commit(clean_offset: int, metadata: str | None, epoch: int) -> Committed | None:
    """The inverse; None where nothing (of this epoch) was committed."""
    found = _COMMIT.fullmatch(metadata or "")
    if clean_offset < 0 or found is None or int(found[1]) != epoch:
        return None
    return Committed(clean_offset, int(found[2]))
