"""What every blob store must do. A test class of a store inherits this and gives a `store`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.storage.blobs import BlobStore, MissingBlobError, require_conditional_put

RACERS = 8
PART_BYTES = 5 << 20
"""The least that S3 takes as a part; its stores are opened with it, so that LARGE goes up in parts."""
LARGE = bytes(range(256)) * (2 * PART_BYTES // 256) + b"and a third part"
KEY = "replays/v1/retention=30d/date=2026-08-31/hour=23/t-1-0-0.jsonl.zst"


class BlobStoreContract:
    """Rules of `BlobStore`, in the order of its methods."""

    def test_the_first_put_wins_and_a_later_one_changes_nothing(self, store: BlobStore) -> None:
        assert store.put_if_absent(KEY, b"first") is True
        assert store.put_if_absent(KEY, b"second") is False
        assert store.get(KEY)[0] == b"first"

    def test_of_racing_puts_exactly_one_wins_and_its_bytes_stay(self, store: BlobStore) -> None:
        bodies = [bytes([n]) * 200_000 for n in range(RACERS)]
        won = race(lambda n: store.put_if_absent(KEY, bodies[n]))
        assert won.count(True) == 1
        assert store.get(KEY)[0] == bodies[won.index(True)]

    def test_a_replacement_needs_the_etag_of_what_is_there(self, store: BlobStore) -> None:
        store.put_if_absent(KEY, b"first")
        old = store.get(KEY)[1]
        assert store.replace_if_match(KEY, b"second", old) is True
        body, new = store.get(KEY)
        assert (body, new != old) == (b"second", True)
        assert store.replace_if_match(KEY, b"third", old) is False
        assert store.get(KEY) == (b"second", new)

    def test_of_racing_replacements_exactly_one_matches(self, store: BlobStore) -> None:
        store.put_if_absent(KEY, b"before")
        etag = store.get(KEY)[1]
        bodies = [bytes([n]) * 200_000 for n in range(RACERS)]
        won = race(lambda n: store.replace_if_match(KEY, bodies[n], etag))
        assert won.count(True) == 1
        assert store.get(KEY)[0] == bodies[won.index(True)]

    def test_a_replacement_makes_no_blob(self, store: BlobStore) -> None:
        store.put_if_absent("other", b"")
        assert store.replace_if_match(KEY, b"x", store.get("other")[1]) is False
        with pytest.raises(MissingBlobError):
            store.get(KEY)

    def test_a_missing_key_is_told(self, store: BlobStore) -> None:
        with pytest.raises(MissingBlobError):
            store.get(KEY)
        with pytest.raises(MissingBlobError):
            store.get_range(KEY, 0, 1)

    @pytest.mark.parametrize(
        ("start", "length", "found"),
        [(0, 4, b"0123"), (3, 2, b"34"), (8, 100, b"89"), (10, 5, b""), (50, 5, b""), (2, 0, b"")],
    )
    def test_a_range_is_cut_at_the_end(self, store: BlobStore, start: int, length: int, found: bytes) -> None:
        store.put_if_absent(KEY, b"0123456789")
        assert store.get_range(KEY, start, length) == found

    def test_an_empty_blob_is_one(self, store: BlobStore) -> None:
        assert store.put_if_absent(KEY, b"") is True
        assert store.get(KEY)[0] == b""

    def test_keys_come_in_order_by_prefix(self, store: BlobStore) -> None:
        for key in ("a/c", "a/b/2", "a/b/10", "ab/x", "b"):
            store.put_if_absent(key, b".")
        assert list(store.keys("a/")) == ["a/b/10", "a/b/2", "a/c"]
        assert list(store.keys("a/b/1")) == ["a/b/10"]
        assert list(store.keys("")) == ["a/b/10", "a/b/2", "a/c", "ab/x", "b"]
        assert list(store.keys("none/")) == []

    def test_sizes_are_told_with_the_keys(self, store: BlobStore) -> None:
        for key, size in {"a/c": 3, "a/b": 0, "b": 7}.items():
            store.put_if_absent(key, bytes(size))
        assert list(store.sizes("a/")) == [("a/b", 0), ("a/c", 3)]
        assert list(store.sizes("none/")) == []

    @pytest.mark.parametrize(
        "after", ["", "a", "a-b", "a/", "a/b", "a/b/", "a/b/1", "a/b/2", "a/b0", "a/c", "a0", "b", "c"]
    )
    def test_a_listing_may_begin_after_any_text(self, store: BlobStore, after: str) -> None:
        keys = ["a-b", "a/b/1", "a/b/2", "a/b-c", "a/c", "a.d", "b"]
        for key in keys:
            store.put_if_absent(key, b".")
        assert [key for key, _ in store.sizes("a", after)] == sorted(key for key in keys if key > after and key != "b")

    def test_a_large_blob_keeps_the_condition(self, store: BlobStore) -> None:
        assert store.put_if_absent(KEY, LARGE) is True
        assert store.put_if_absent(KEY, LARGE[::-1]) is False
        assert store.get(KEY)[0] == LARGE
        assert store.get_range(KEY, PART_BYTES - 2, 4) == LARGE[PART_BYTES - 2 : PART_BYTES + 2]

    def test_a_large_replacement_keeps_the_condition(self, store: BlobStore) -> None:
        store.put_if_absent(KEY, b"first")
        old = store.get(KEY)[1]
        assert store.replace_if_match(KEY, LARGE, old) is True
        assert store.replace_if_match(KEY, LARGE[::-1], old) is False
        assert store.get(KEY)[0] == LARGE

    def test_of_racing_large_puts_exactly_one_wins(self, store: BlobStore) -> None:
        bodies = [bytes([n]) * (PART_BYTES + 1) for n in range(RACERS)]
        won = race(lambda n: store.put_if_absent(KEY, bodies[n]))
        assert won.count(True) == 1
        assert store.get(KEY)[0] == bodies[won.index(True)]

    def test_purging_versions_leaves_what_is_there(self, store: BlobStore) -> None:
        store.put_if_absent(KEY, b"first")
        store.replace_if_match(KEY, b"second", store.get(KEY)[1])
        store.purge_versions(KEY)
        assert store.get(KEY)[0] == b"second"
        store.purge_versions("none")

    def test_a_sweep_leaves_what_is_there(self, store: BlobStore) -> None:
        store.put_if_absent(KEY, b"first")
        assert store.sweep("") == 0
        assert list(store.keys("")) == [KEY]

    def test_conditional_puts_hold_and_the_probe_leaves_nothing(self, store: BlobStore) -> None:
        require_conditional_put(store)
        assert list(store.keys("")) == []

    def test_a_deleted_blob_is_gone_and_its_key_free(self, store: BlobStore) -> None:
        store.put_if_absent(KEY, b"first")
        store.delete(KEY)
        store.delete(KEY)
        with pytest.raises(MissingBlobError):
            store.get(KEY)
        assert store.put_if_absent(KEY, b"again") is True


class VersionedContract(BlobStoreContract):
    """A store that keeps what was replaced or deleted: the same rules, and nothing of the past stays where it must go.
    A test class gives `past(key)` too: how many earlier contents and delete markers the store keeps of a key."""

    def past(self, key: str) -> int:
        raise NotImplementedError

    def test_purging_versions_removes_the_past_of_exactly_this_key(self, store: BlobStore) -> None:
        for key in (KEY, KEY + "0"):
            store.put_if_absent(key, b"first")
            for body in (b"second", b"third"):
                store.replace_if_match(key, body, store.get(key)[1])
        store.purge_versions(KEY)
        assert (self.past(KEY), self.past(KEY + "0")) == (0, 2)
        assert (store.get(KEY)[0], store.get(KEY + "0")[0]) == (b"third", b"third")

    def test_a_deletion_leaves_no_version_and_no_marker(self, store: BlobStore) -> None:
        store.put_if_absent(KEY, b"first")
        store.replace_if_match(KEY, b"second", store.get(KEY)[1])
        store.put_if_absent(KEY + "0", b"other")
        store.delete(KEY)
        assert self.past(KEY) == 0
        assert list(store.keys("")) == [KEY + "0"]


def race(work) -> list[bool]:
    """RACERS threads that begin at once: what each was answered."""
    start = threading.Barrier(RACERS)

    def run(n: int) -> bool:
        start.wait()
        return work(n)

    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(run, range(RACERS)))
