"""The records: batches, events, sessions, blocks, outcomes. Frozen, plain, no I/O; everything else is made of these."""
