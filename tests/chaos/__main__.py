"""`make chaos`: a long run. SEED and ACTIONS in the environment choose another; without SEED one is drawn and printed."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run

ACTIONS = 210


def main() -> int:
    seed = int(os.environ.get("SEED") or secrets.randbelow(1 << 31))
    actions = int(os.environ.get("ACTIONS") or ACTIONS)
    folder = Path(tempfile.mkdtemp(prefix="replay-chaos-"))
    try:
        run(folder / "home", seed=seed, actions=actions, say=lambda line: print(line, flush=True))
    except BaseException:
        print(f"chaos: SEED={seed} ACTIONS={actions}: what it left is in {folder}", file=sys.stderr, flush=True)
        raise
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
