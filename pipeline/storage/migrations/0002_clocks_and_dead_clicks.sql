-- Times are stored by the corrected clock; ts - clock_correction_ms is what the client said.
ALTER TABLE {database}.events
    ADD COLUMN IF NOT EXISTS clock_correction_ms Int64 CODEC(Delta, ZSTD(1));

ALTER TABLE {database}.sessions
    ADD COLUMN IF NOT EXISTS dead_clicks UInt64 AFTER rage_clicks,
    ADD COLUMN IF NOT EXISTS clock_correction_ms Int64 AFTER late;
