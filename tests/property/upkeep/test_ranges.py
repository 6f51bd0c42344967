"""Overlapping claims, against every pair compared: an object is told if and only if it overlaps one that came before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.blocks import Manifest
from pipeline.upkeep.findings import Ranges


def claiming(first: int, last: int, *, partition: int = 0, retention: str = "30d") -> Manifest:
    return Manifest(
        object=f"o-{first}", topic="t", epoch=1, source_partition=partition, first=first, last=last,
        retention=retention, expires_at=0, blocks=(),
    )  # fmt: skip


CLAIMS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12), st.integers(0, 1)).map(lambda c: (c[0], c[0] + c[1], c[2])),
    max_size=25,
)


@given(CLAIMS)
def test_an_object_is_told_if_and_only_if_it_overlaps_an_earlier_one(claims: list[tuple[int, int, int]]) -> None:
    ranges = Ranges()
    for at, (first, last, partition) in enumerate(claims):
        overlaps = any(f <= last and first <= t and p == partition for f, t, p in claims[:at])
        assert (ranges.claim(claiming(first, last, partition=partition)) is not None) == overlaps


def test_pinned_copies_of_the_same_offsets_are_no_overlap() -> None:
    ranges = Ranges()
    assert [ranges.claim(claiming(0, 10, retention="pinned")) for _ in range(2)] == [None, None]


def test_retention_classes_have_offsets_of_their_own() -> None:
    ranges = Ranges()
    assert ranges.claim(claiming(0, 10, retention="1y")) is None
    assert ranges.claim(claiming(5, 15, retention="30d")) is None
    found = ranges.claim(claiming(15, 20, retention="30d"))
    assert found is not None
    assert (found.kind, found.object) == ("overlap", "o-15")
