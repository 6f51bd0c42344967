"""Reading ahead: order, and the two limits, seen from inside the reads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.storage.ahead import Limits, read_ahead

JOBS = [(n, size) for n, size in enumerate([10, 1, 1, 1, 50, 1, 1, 10, 1, 1, 1, 1])]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as made:
        yield made


class Watched:
    """Jobs that note how much was asked for and not yet taken when each was handed out."""

    def __init__(self) -> None:
        self.taken = 0
        self.most_reads = self.most_bytes = 0
        self._asked: list[int] = []
        self._guard = threading.Lock()

    def read(self, job: int) -> str:
        with self._guard:
            self._asked.append(job)
            waiting = [JOBS[each][1] for each in self._asked if each >= self.taken]
            self.most_reads = max(self.most_reads, len(waiting))
            if len(waiting) > 1:
                self.most_bytes = max(self.most_bytes, sum(waiting))
        return f"answer {job}"


@pytest.mark.parametrize(("reads", "read_bytes"), [(1, 100), (3, 100), (100, 12), (3, 12), (100, 100)])
def test_answers_come_in_order_and_what_is_ahead_is_bounded(pool, reads: int, read_bytes: int) -> None:
    watched, answers = Watched(), []
    for job, answer in read_ahead(pool, watched.read, JOBS, Limits(reads, read_bytes)):
        answers.append((job, answer))
        watched.taken = job + 1
    assert answers == [(n, f"answer {n}") for n, _ in JOBS]
    assert watched.most_reads <= reads
    assert watched.most_bytes <= read_bytes


def test_reads_run_at_the_same_time(pool) -> None:
    together = threading.Barrier(3)

    def read(job: int) -> int:
        together.wait(10)  # passes only where three are in it
        return job

    assert [job for job, _ in read_ahead(pool, read, [(n, 1) for n in range(9)], Limits(3, 100))] == list(range(9))


def test_a_read_that_fails_is_told_at_its_place(pool) -> None:
    def read(job: int) -> int:
        if job == 2:
            raise OSError
        return job

    found = read_ahead(pool, read, [(n, 1) for n in range(9)], Limits(4, 100))
    assert [next(found), next(found)] == [(0, 0), (1, 1)]
    with pytest.raises(OSError):  # noqa: PT011
        next(found)


def test_who_stops_early_leaves_nothing_asked(pool) -> None:
    asked = []
    gate = threading.Event()

    def read(job: int) -> int:
        asked.append(job)
        if job > 0:
            gate.wait(10)
        return job

    with ThreadPoolExecutor(1) as one:
        found = read_ahead(one, read, [(n, 1) for n in range(9)], Limits(8, 100))
        next(found)
        found.close()
        gate.set()
    assert asked in ([0], [0, 1])
