"""Kafka's partitioner, written from the Java client's definition: what our producers are held against."""

from __future__ import annotations


def murmur2(data: bytes) -> int:
    """Kafka's hash, from the Java client's `Utils.murmur2` (seed 0x9747b28c, 32-bit)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
