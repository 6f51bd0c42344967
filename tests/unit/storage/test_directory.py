"""A directory keeps the contract of blob stores, between processes and after killed writers too."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from pipeline.errors import RetryableError
from pipeline.storage.directory import DirectoryStore
from tests.unit.storage.contract import KEY, BlobStoreContract

PROCESSES = 4


class TestDirectoryStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> DirectoryStore:
        return DirectoryStore(tmp_path / "objects")


def _contend(root: Path, n: int, etag: str, start, answers) -> None:
    store = DirectoryStore(root)
    start.wait()
    won = (
        store.replace_if_match(KEY, bytes([n]) * 100_000, etag)
        if etag
        else store.put_if_absent(KEY, bytes([n]) * 100_000)
    )
    answers.put((n, won))


@pytest.mark.parametrize("replacing", [False, True])
def test_of_racing_processes_exactly_one_wins(tmp_path: Path, replacing: bool) -> None:
    store = DirectoryStore(tmp_path)
    if replacing:
        store.put_if_absent(KEY, b"before")
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(PROCESSES), context.Queue()
    etag = store.get(KEY)[1] if replacing else ""
    racers = [context.Process(target=_contend, args=(tmp_path, n, etag, start, answers)) for n in range(PROCESSES)]
    for each in racers:
        each.start()
    told = [answers.get(timeout=30) for _ in racers]
    for each in racers:
        each.join()
    (winner,) = [n for n, won in told if won]
    assert store.get(KEY)[0] == bytes([winner]) * 100_000


def test_the_etag_is_the_hash_of_the_content(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put_if_absent(KEY, b"abc")
    assert store.get(KEY)[1] == hashlib.sha256(b"abc").hexdigest()


def test_what_killed_writers_left_is_swept_and_what_is_being_written_stays(tmp_path: Path) -> None:
    folder = (tmp_path / KEY).parent
    folder.mkdir(parents=True)
    old, new = folder / ".writing-old", folder / ".writing-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7_200,) * 2)
    store = DirectoryStore(tmp_path)
    assert list(store.keys("")) == []
    store.put_if_absent(KEY, b"whole")
    assert sorted(path.name for path in folder.iterdir()) == [".writing-new", Path(KEY).name]


def test_a_sweep_finds_what_killed_writers_left_in_any_folder(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put_if_absent(KEY, b"whole")
    old, new = tmp_path / "replays" / ".writing-old", (tmp_path / KEY).with_name(".writing-new")
    for path in (old, new):
        path.write_bytes(b"half")
    for path in (old, tmp_path / KEY):
        os.utime(path, (time.time() - 7_200,) * 2)
    assert store.sweep("elsewhere/") == 0
    assert store.sweep("replays/") == 1
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".writing-new", Path(KEY).name]


def test_a_folder_that_cannot_be_written_is_retryable(tmp_path: Path) -> None:
    (tmp_path / "replays").write_text("a file in the way")
    with pytest.raises(RetryableError, match="write"):
        DirectoryStore(tmp_path).put_if_absent(KEY, b"x")


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/./b", ".hidden", "a/.writing-x"])
def test_a_key_stays_inside_the_directory(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="plain names"):
        DirectoryStore(tmp_path).put_if_absent(key, b"x")
