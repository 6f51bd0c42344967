"""Redaction on the server, whatever the client did: pure, batch by batch, counted by kind and method, values never told.

`events` leads a batch through: a gate over the raw bytes first (`gates`), splices of the strings that it hits (`splice`), the
walk of the whole event (`tree`) where a splice is unsure; strings (`text`) by the `detectors` and their checks, sensitive keys
by `names`, typed values by `typed`, what the page says of them again by `repeats`; `rules` and `rulefile` say how. What cannot be
read where it must be is poison, never passed on.

Poison is kept whole: replay.dead_letters holds raw, unredacted bytes, as replay.batches does. Both are kept safe alike: they
are topics of their own that only workers and operators need to read (restrict them by ACL), with a short retention and
segments short enough for it to hold. A dead letter's reason and detail quote no value.

Not covered: names, addresses and notes in free text, which no pattern knows; a secret in letters that its page itself writes
in another batch than the one where it was typed; base64 of fewer than eleven characters; style text, on purpose.
"""
