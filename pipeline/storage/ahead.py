"""Reads ahead: several at once, bounded in number and in bytes, answered in the order they were asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TypeVar

Job = TypeVar("Job")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Limits:
    """At most so many reads, and so many bytes, asked for and not yet taken; one read whatever its size."""

    reads: int = 8
    read_bytes: int = 32 << 20


def read_ahead(
    pool: Executor, read: Callable[[Job], Found], jobs: Iterable[tuple[Job, int]], limits: Limits
) -> Iterator[tuple[Job, Found]]:
    """(job, read(job)) of each job, in order; a job comes with the bytes its answer will hold.

    Raises what a read raised, at its place in the order. Whoever stops early cancels what has not begun.
    """
    waiting: deque[tuple[Job, int, Future[Found]]] = deque()
    held = 0
    left = iter(jobs)
    upcoming = next(left, None)
    try:
        while waiting or upcoming is not None:
            while upcoming is not None and len(waiting) < limits.reads:
                job, size = upcoming
                if waiting and held + size > limits.read_bytes:
                    break
                waiting.append((job, size, pool.submit(read, job)))
                held += size
                upcoming = next(left, None)
            job, size, future = waiting[0]
            found = future.result()
            waiting.popleft()
            del future
            yield job, found
            held -= size
    finally:
        for _, _, each in waiting:
            each.cancel()
