-- What was asked to be erased, and the certificate that says what was done: GET /v1/erasures/{id}. A later revision
-- replaces an earlier one.
CREATE TABLE IF NOT EXISTS {database}.erasure_requests
(
    tenant       LowCardinality(String),
    id           String,
    revision     UInt64,
    kind         LowCardinality(String),
    subject      String,
    asked_by     String,
    asked_at     DateTime64(3, 'UTC'),
    status       LowCardinality(String),
    waits_for    String,
    certificate  String,
    updated_at   DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (tenant, id)
SETTINGS non_replicated_deduplication_window = 20000;

-- What a mutation replaced stays on disk for this long, in case that the machine stops before the new part reached the
-- disk (eight minutes unless said otherwise), and the engine looks ever more seldom where little is to do. An erasure ends only
-- when it is gone.
ALTER TABLE {database}.events MODIFY SETTING old_parts_lifetime = 60, max_cleanup_delay_period = 30;
ALTER TABLE {database}.sessions MODIFY SETTING old_parts_lifetime = 60, max_cleanup_delay_period = 30;
ALTER TABLE {database}.session_users MODIFY SETTING old_parts_lifetime = 60, max_cleanup_delay_period = 30;
ALTER TABLE {database}.blocks MODIFY SETTING old_parts_lifetime = 60, max_cleanup_delay_period = 30;
ALTER TABLE {database}.erasure_requests MODIFY SETTING old_parts_lifetime = 60, max_cleanup_delay_period = 30;
