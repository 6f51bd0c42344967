"""Chaos: a schedule of kills, stops and outages over real processes, drawn from a seed, and an exact account at the end.

`make chaos` runs a long one and prints its seed; `SEED=… ACTIONS=…` runs it again, or another.
"""
