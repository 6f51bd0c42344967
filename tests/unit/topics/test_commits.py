"""What a sink's commit remembers beside the offset."""

from __future__ import annotations

import pytest

from pipeline.topics.commits import Committed, commit_metadata, read_commit


def test_a_commit_remembers_mark_and_epoch() -> None:
    assert commit_metadata(3, 41) == "v1 epoch=3 mark=41"
    assert read_commit(90, "v1 epoch=3 mark=41", 3) == Committed(clean_offset=90, mark=41)
    assert read_commit(0, "v1 epoch=3 mark=-1", 3) == Committed(clean_offset=0, mark=-1)


@pytest.mark.parametrize(
    ("offset", "metadata"),
    [
        (-1001, "v1 epoch=3 mark=4"),
        (5, "v1 epoch=2 mark=4"),
        (5, ""),
        (5, None),
        (5, "a=b=c"),
        (5, "v1 epoch=3 mark=x"),
    ],
)
def test_another_epoch_or_no_commit_is_none(offset: int, metadata: str | None) -> None:
    assert read_commit(offset, metadata, 3) is None
