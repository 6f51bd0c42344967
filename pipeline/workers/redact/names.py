"""Which names give a secret away: keys of forms, names and ids of fields."""

from __future__ import annotations

import functools
import re

_ANYWHERE = (
    r"passw|passwd|passphrase|passcode|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|"
    r"card[_-]?n|credit[_-]?card|debit[_-]?card|cvv|cvc|security[_-]?code"
)
_WHOLE_WORD = r"auth|card|cc|csc|ssn|iban|otp|pin|pan"
_SENSITIVE = re.compile(rf"(?:{_ANYWHERE})|(?<![a-z0-9])(?:{_WHOLE_WORD})(?![a-z0-9])", re.I | re.ASCII)

NAME_CHARS_MAX = 256
"""Only so much of a name is looked at: its end, where an element path has the field itself."""


def is_sensitive(name: str) -> bool:
    """Whether a key, a field's name or an element path's last step says that its value is a secret.

    A short word counts only where it stands alone: `pin` in `#pin`, not in `shipping`.
    """
    return _tells_a_secret(name[-NAME_CHARS_MAX:])


@functools.lru_cache(4096)
def _tells_a_secret(name: str) -> bool:
    return _SENSITIVE.search(name) is not None


def is_sensitive_target(target: object) -> bool:
    """An element path such as `form#checkout > input#card`: only the last step names the field."""
    return isinstance(target, str) and is_sensitive(target.rpartition(">")[2].strip())
