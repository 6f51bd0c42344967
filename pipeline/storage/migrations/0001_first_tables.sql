-- Rows of events and blocks come in through claims (see pipeline/sinks/warehouse.py): a guarded insert redoes what a
-- crash left half done. The dedup window is a second net only, never relied on alone.

-- One row an event. Identity: (epoch, source_partition, source_offset, event_index); seq = source_offset * 2^20 + event_index.
CREATE TABLE IF NOT EXISTS {database}.events
(
    tenant           LowCardinality(String),
    session_id       String,
    part             LowCardinality(String),
    window_id        String,
    user_id          String,
    seq              UInt64 CODEC(Delta, ZSTD(1)),
    ts               DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    type             LowCardinality(String),
    source           LowCardinality(String),
    late             Bool,
    expires_at       DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    url              String CODEC(ZSTD(1)),
    target           String CODEC(ZSTD(1)),
    text             String CODEC(ZSTD(1)),
    level            LowCardinality(String),
    message          String CODEC(ZSTD(1)),
    x                Nullable(Float64) CODEC(ZSTD(1)),
    y                Nullable(Float64) CODEC(ZSTD(1)),
    data             String CODEC(ZSTD(1)),
    epoch            UInt32,
    source_partition UInt32,
    source_offset    UInt64 CODEC(Delta, ZSTD(1)),
    event_index      UInt32 CODEC(Delta, ZSTD(1)),
    stored_at        DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1)),
    INDEX source_offsets source_offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (tenant, session_id, epoch, seq)
TTL expires_at
SETTINGS non_replicated_deduplication_window = 20000;

-- A later revision replaces an earlier one: read with FINAL, or argMax by revision.
CREATE TABLE IF NOT EXISTS {database}.sessions
(
    tenant           LowCardinality(String),
    session_id       String,
    part             String,
    revision         UInt64,
    status           LowCardinality(String),
    close_reason     LowCardinality(String),
    source           LowCardinality(String),
    user_id          String,
    started_at       DateTime64(3, 'UTC'),
    ended_at         DateTime64(3, 'UTC'),
    duration_ms      UInt64,
    active_ms        UInt64,
    events           UInt64,
    clicks           UInt64,
    rage_clicks      UInt64,
    inputs           UInt64,
    scrolls          UInt64,
    mouse_moves      UInt64,
    navigations      UInt64,
    console_errors   UInt64,
    errors           UInt64,
    throttled        UInt64,
    redacted         UInt64,
    late             UInt64,
    first_url        String,
    last_url         String,
    urls             Array(String),
    user_agent       String,
    viewport_width   UInt32,
    viewport_height  UInt32,
    retention        LowCardinality(String),
    expires_at       DateTime('UTC'),
    epoch            UInt32,
    source_partition UInt32
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (tenant, session_id, part)
TTL expires_at
SETTINGS non_replicated_deduplication_window = 20000;

-- Whose a session is: filters and erasure go by it. A session may learn its user late, and have had an alias before.
CREATE TABLE IF NOT EXISTS {database}.session_users
(
    tenant     LowCardinality(String),
    session_id String,
    user_id    String,
    revision   UInt64,
    expires_at DateTime('UTC')
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (tenant, user_id, session_id)
TTL expires_at
SETTINGS non_replicated_deduplication_window = 20000;

-- Index of the replay bytes: block n of an object, a zstd frame of its own at [byte_start, byte_start + byte_length).
CREATE TABLE IF NOT EXISTS {database}.blocks
(
    tenant             LowCardinality(String),
    session_id         String,
    part               LowCardinality(String),
    window_id          String,
    object             String,
    n                  UInt32,
    byte_start         UInt64,
    byte_length        UInt64,
    first_ts           DateTime64(3, 'UTC'),
    last_ts            DateTime64(3, 'UTC'),
    event_count        UInt32,
    sha256             FixedString(64),
    epoch              UInt32,
    source_partition   UInt32,
    source_offset      UInt64,
    source_last_offset UInt64,
    expires_at         DateTime('UTC'),
    INDEX objects object TYPE bloom_filter GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(first_ts)
ORDER BY (tenant, session_id, epoch, source_offset, object, n)
TTL expires_at
SETTINGS non_replicated_deduplication_window = 20000;

-- Counts by minute and type, one row a claim: a claim done again replaces its own rows. Read with FINAL and sum(events).
CREATE TABLE IF NOT EXISTS {database}.minutes
(
    tenant           LowCardinality(String),
    minute           DateTime('UTC'),
    type             LowCardinality(String),
    source           LowCardinality(String),
    epoch            UInt32,
    source_partition UInt32,
    first            UInt64,
    events           UInt64,
    expires_at       DateTime('UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, minute, type, source, epoch, source_partition, first)
TTL expires_at
SETTINGS non_replicated_deduplication_window = 20000;

-- The warehouse sink's own book, a chain a partition: it claims a range of source offsets, inserts it, marks it done.
CREATE TABLE IF NOT EXISTS {database}.claims
(
    epoch            UInt32,
    source_partition UInt32,
    first            UInt64,
    last             UInt64,
    state            Enum8('claim' = 1, 'done' = 2),
    at               DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (epoch, source_partition, first, state)
SETTINGS non_replicated_deduplication_window = 20000;

-- What may no longer come in: a session's rows and blocks at or below its erasure's offset.
CREATE TABLE IF NOT EXISTS {database}.erasures
(
    tenant           LowCardinality(String),
    session_id       String,
    epoch            UInt32,
    source_partition UInt32,
    source_offset    UInt64,
    at               DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (tenant, session_id, epoch, source_offset)
SETTINGS non_replicated_deduplication_window = 20000;
