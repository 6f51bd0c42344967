"""portable-replay."""
