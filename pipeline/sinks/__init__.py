"""Readers of replay.clean that fill the stores, each event once whatever is killed.

`delivery` decides purely what a record means and when to flush; `consume` runs the loop against Kafka; `warehouse` and
`objects` write. The protocol they follow was model-checked; its rules are told where they are carried out.
"""
