"""Both sinks, exactly once: rounds drawn from a seed, in which processes and stores are struck in the middle of a flush.

`make chaos-sinks` plays hundreds; `SEED=… ROUNDS=…` plays a round again, or others. `draw` says purely what is on the topics
and what strikes when, `wire` strikes, `run` carries a round out, `account` compares the stores with what was drawn.
"""
