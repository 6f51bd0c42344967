"""Secrets to look for, in every form in which a reader could still have them; independent of how redaction finds them."""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

_UNICODE = re.compile(rb"\\+u00([0-7][0-9a-fA-F])")
_OPENED_TIMES = 3


def base64_forms(secret: bytes) -> set[bytes]:
    """The characters that base64 of any text around the secret must hold: one row for each of the three alignments."""
    forms = set()
    for before in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            bits = encode(b"\0" * before + secret)
            first = -(-before * 8 // 6)  # characters that hold a bit of what stands before
            last = (before + len(secret)) * 8 // 6
            forms.add(bits[first:last])
    return forms


def forms(secret: str) -> set[bytes]:
    """Raw, JSON-escaped, percent-encoded (reserved characters only, or all; either case), base64."""
    raw = secret.encode()
    found = {raw, json.dumps(secret)[1:-1].encode(), quote(secret, safe="").encode(), secret.replace(" ", "+").encode()}
    found |= {"".join(f"%{each:02x}" for each in raw).encode(), "".join(f"%{each:02X}" for each in raw).encode()}
    found |= {re.sub(rb"%[0-9A-F]{2}", lambda hit: hit[0].lower(), each) for each in list(found)}
    return found | base64_forms(raw)


def opened(blob: bytes) -> bytes:
    """The blob, and what one has who undoes JSON's escapes and percent-encoding, up to three deep."""
    seen = [blob]
    for _ in range(_OPENED_TIMES):
        plain = _UNICODE.sub(lambda hit: bytes.fromhex(hit[1].decode()), seen[-1]).replace(b"\\", b"")
        if b"%" in plain:
            plain = unquote_to_bytes(plain)
        if plain == seen[-1]:
            break
        seen.append(plain)
    return b"\n".join(seen)


def left_in(blob: bytes, secrets: Iterable[str]) -> list[str]:
    """Those of the secrets that the blob holds in any form."""
    plain = opened(blob)
    return [secret for secret in secrets if any(form in plain for form in forms(secret))]


def strings(value: Any) -> Iterable[str]:
    """Every string and key of a JSON value, and of JSON in its strings."""
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "[", '"'):
            try:
                yield from strings(json.loads(value))
            except ValueError:
                return
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
