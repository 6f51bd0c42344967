"""Erasure: what is asked for, carried out in every store, looked for afterwards, and certified.

A request goes into the log (`ErasureRequest` on replay.batches); the eraser waits until worker and sinks are past it, and
only then deletes: so nothing of the session is on its way any more, and what a sleeping process may still write is refused.
"""
