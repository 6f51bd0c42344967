"""replay.batches → replay.clean, replay.sessions, replay.dead_letters.

`throttle`, `redact`, `sessionize` and `chain` decide: functions of state, batch and rules alone, so that a batch read again
after a crash gives the same bytes. `store` and `app` act: they follow the model-checked protocol that makes the clean log
exact. `reference` is the chain without any of that: what every run must equal.
"""
