"""What the embedded broker is given."""

from __future__ import annotations

import base64
import uuid

import pytest

from pipeline.local.kafka import new_cluster_id


@pytest.mark.parametrize("first_byte", [0, 0x3E << 2, 0x3F << 2, 0xFF])
def test_cluster_id_is_16_bytes_in_base64_and_never_looks_like_an_option(first_byte: int) -> None:
    cluster_id = new_cluster_id(uuid.UUID(bytes=bytes([first_byte]) + b"0123456789abcde"))
    assert not cluster_id.startswith("-")
    assert len(base64.urlsafe_b64decode(cluster_id + "==")) == 16
