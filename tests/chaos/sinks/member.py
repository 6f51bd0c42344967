"""`replay sink …` with hardly any patience: a store that stays silent is given up, a dead neighbour is missed after seconds."""

from __future__ import annotations

import functools

from pipeline.sinks import consume, sessions
from pipeline.storage import clickhouse, s3
from pipeline.topics import clients

PATIENCE_S = 2
MISSED_AFTER_MS = 2_000

if __name__ == "__main__":
    clickhouse.ANSWER_TIMEOUT_S = s3.READ_TIMEOUT_S = PATIENCE_S
    consume.BACKOFF_MAX_S = 0.5
    consume.OPEN_AGAIN_S = sessions.RETRY_S = 0.2
    clients.consumer = functools.partial(
        clients.consumer, **{"session.timeout.ms": MISSED_AFTER_MS, "heartbeat.interval.ms": MISSED_AFTER_MS // 4}
    )
    from pipeline.cli import main

    main()
