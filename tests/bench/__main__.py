"""`make bench`: every rate of the README, each as a ratio to a named baseline measured in the same run."""

from __future__ import annotations

import sys
import time

from tests.bench import chain, memory, objects, queries, sink, startup, worker


def main() -> int:
    started = time.monotonic()
    for module in (startup, chain, worker, sink, objects, queries, memory):
        print(
            f"\n== {module.__name__.removeprefix('tests.bench.')}: {(module.__doc__ or '').splitlines()[0]}", flush=True
        )
        module.main()
    print(f"\ndone in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
