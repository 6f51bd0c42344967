-- Sessions that are kept whatever their class says, until they are unpinned: the last revision counts. expires_at is when the
-- session's youngest row went without the pin: what its rows are given back.
CREATE TABLE IF NOT EXISTS {database}.pins
(
    tenant     LowCardinality(String),
    session_id String,
    pinned     Bool,
    expires_at DateTime('UTC'),
    revision   UInt64,
    at         DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (tenant, session_id);
