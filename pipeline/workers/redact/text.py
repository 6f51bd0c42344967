"""One string → the string as it may leave. Looks into JSON in the string, percent-encoding and base64, to a bounded depth."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import Counter
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from pipeline.workers.redact.detectors import DETECTORS
from pipeline.workers.redact.gates import BASE64_GATE
from pipeline.workers.redact.rules import Redaction

DEPTH_MAX = 4
"""Encodings within encodings that are looked into."""

PLAIN_CHARS = 11
"""No detector of the table finds anything in fewer letters and digits alone: the shortest are a card's 13 digits."""

_PIECE = re.compile(r"""[^\s&=?#;/"'<>(),{}\[\]]*%[0-9A-Fa-f]{2}[^\s&=?#;/"'<>(),{}\[\]]*""")
_BASE64 = re.compile(BASE64_GATE)
_RUN = re.compile("[A-Za-z0-9+/_-]{15,}")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def redact_text(text: str, rules: Redaction, counts: Counter[str], depth: int = 0) -> str:
    """`counts` gains `<kind>.<method>`. The same text gives the same result wherever it stands."""
    if len(text) < PLAIN_CHARS and text.isalnum() and rules.detectors is DETECTORS:
        return text
    gates = rules.gates
    hits = gates.which(text.encode("utf-8", "surrogatepass"))
    if not hits:
        return text
    inside = _json(text, rules, counts, depth)
    if inside is not None:
        return inside
    text = _detect(text, hits, rules, counts)
    if depth < DEPTH_MAX:
        if gates.percent in hits:
            text = _percent(text, rules, counts, depth)
        if gates.base64 in hits or gates.percent in hits:
            text = _base64(text, rules, counts, depth)
    return text


def _detect(text: str, hits: list[int], rules: Redaction, counts: Counter[str]) -> str:
    """`hits` are the gates that hit the text: what no gate hits, its detector does not find."""
    for index, detector in enumerate(rules.detectors):
        if index not in hits:
            continue

        def put(found: re.Match[str], detector: Any = detector) -> str:
            if not detector.check(found):
                return found[0]
            group = found.lastindex or 0 if detector.group < 0 else detector.group
            start, end = found.start(group) - found.start(), found.end(group) - found.start()
            return found[0][:start] + rules.apply(detector.kind, found[group], counts) + found[0][end:]

        text = detector.pattern.sub(put, text)
    return text


def _json(text: str, rules: Redaction, counts: Counter[str], depth: int) -> str | None:
    """The text anew where it is JSON with something to redact, else None."""
    from pipeline.workers.redact.tree import Walk

    stripped = text.strip()
    if depth >= DEPTH_MAX or not stripped.startswith(("{", "[", '"')):
        return None
    try:
        value = _decode(stripped)
        own: Counter[str] = Counter()
        walked = Walk(rules, own, text_depth=depth + 1).value(value)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not own:
        return None
    counts.update(own)
    return _encode(walked).decode()


def _percent(text: str, rules: Redaction, counts: Counter[str], depth: int) -> str:
    def put(found: re.Match[str]) -> str:
        plain = unquote(found[0])
        clean = redact_text(plain, rules, counts, depth + 1)
        return found[0] if clean == plain else quote(clean, safe="[]:*")

    text = _PIECE.sub(put, text)
    plain = unquote(text)
    hits = rules.gates.which(plain.encode("utf-8", "surrogatepass"))
    if not hits:
        return text
    clean = _detect(plain, hits, rules, counts)  # a secret of which only a part was encoded
    return text if clean == plain else clean


def _base64(text: str, rules: Redaction, counts: Counter[str], depth: int) -> str:
    def put(found: re.Match[str]) -> str:
        """The gate's hit gives the alignment; from there the run goes both ways, without a last character alone."""
        hit = _BASE64.search(found[0])
        if hit is None:
            return found[0]
        start = hit.start() % 4
        end = len(found[0]) - ((len(found[0]) - start) % 4 == 1)
        clean = _base64_run(found[0][start:end], rules, counts, depth)
        return found[0] if clean is None else found[0][:start] + clean + found[0][end:]

    return _RUN.sub(put, text)


def _base64_run(run: str, rules: Redaction, counts: Counter[str], depth: int) -> str | None:
    raw = b64decode(run.replace("-", "+").replace("_", "/") + "=" * (-len(run) % 4))
    try:
        plain, encoding = raw.decode(), "utf-8"
    except UnicodeDecodeError:
        plain, encoding = raw.decode("latin-1"), "latin-1"
    clean = redact_text(plain, rules, counts, depth + 1)
    if clean == plain:
        return None
    anew = b64encode(clean.encode(encoding, "replace")).decode().rstrip("=")
    return anew.replace("+", "-").replace("/", "_") if "-" in run or "_" in run else anew
