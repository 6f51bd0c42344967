"""Decoders, one a client: bytes of a body → RecorderBatch records. Pure."""
