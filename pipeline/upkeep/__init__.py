"""Looks after the two stores: are index and bucket the same, and the index rebuilt from the bucket alone."""
