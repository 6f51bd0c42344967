"""`replay sink …` with less patience: a store that stays silent is given up after seconds, so that a run meets many."""

from __future__ import annotations

from pipeline.storage import clickhouse, s3

PATIENCE_S = 6

if __name__ == "__main__":
    clickhouse.ANSWER_TIMEOUT_S = PATIENCE_S
    s3.READ_TIMEOUT_S = PATIENCE_S
    from pipeline.cli import main

    main()
