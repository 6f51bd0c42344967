"""`make chaos-sinks`: hundreds of rounds. SEED (the first) and ROUNDS in the environment choose others; without SEED one is drawn."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests import services
from tests.chaos.sinks.draw import DECK
from tests.chaos.sinks.run import run, world

ROUNDS = 20 * DECK


def main() -> int:
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # we ask while it is away, too
    first = int(os.environ.get("SEED") or secrets.randbelow(1 << 24) * DECK)
    rounds = int(os.environ.get("ROUNDS") or ROUNDS)
    folder = Path(tempfile.mkdtemp(prefix="replay-chaos-sinks-"))
    print(f"chaos-sinks: SEED={first} ROUNDS={rounds}", flush=True)
    failed = []
    settings, broker = services.broker(folder / "broker")
    with broker.running(), world(folder, settings) as shared:
        for seed in range(first, first + rounds):
            left = folder / f"round-{seed}"
            try:
                print(f"chaos-sinks: {run(shared, seed, left)}", flush=True)
                shutil.rmtree(left)
            except BaseException as error:
                print(
                    f"chaos-sinks: SEED={seed} ROUNDS=1 make chaos-sinks: {error}; what it left is in {left}",
                    flush=True,
                )
                if isinstance(error, KeyboardInterrupt):
                    raise
                failed.append(seed)
    print(f"chaos-sinks: SEED={first} ROUNDS={rounds}: {rounds - len(failed)} exact, failed: {failed}", flush=True)
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
