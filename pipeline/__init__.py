"""portable-replay: the path of an event, told once.

A browser (or a service, with `pipeline.producer`) sends a batch of events. `capture` decodes and admits it, purely,
puts it on `replay.batches` keyed by tenant and session, and answers 200 when Kafka has acked it.

A worker reads each offset of `replay.batches` once, in order: it throttles, redacts and sessionizes the batch (a pure
function of the session's state and the batch), writes exactly one clean record for it to the same partition of
`replay.clean`, an update of the session to `replay.sessions`, and only then the session's state to `replay.state`.
What cannot be read goes to `replay.dead_letters` with its coordinates.

Two sinks read `replay.clean` and know nothing of each other: one claims ranges of source offsets and inserts rows into
ClickHouse; the other packs blocks of NDJSON, a zstd frame each, into shared objects and indexes their byte ranges.
A third reader lays the session updates beside the rows. `query` reads both stores.

From the raw topic on an event's name is (epoch, source partition, source offset, index in the batch). Whatever is
killed, both stores end up holding exactly what one uninterrupted run would have given, each event once.

Rooms, left to right as data moves: `model`, `topics`, `capture`, `workers`, `sinks`, `storage`, `query`; beside them
`upkeep` (looks after the two stores), `local` (the embedded stack), `load` (traffic), `observe` (logs, readiness). Imports point one way, stages never import
each other: they meet in topics and stores.
"""
