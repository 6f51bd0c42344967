"""Every error this project raises, drawn as one tree.

Each leaf says what its catcher must do, so that no caller has to guess from a message:

    ReplayError
    ├── RefusedError      the request is wrong; the sender can mend it           → HTTP 4xx
    │   ├── MalformedError     400   a body or a field that breaks the contract; names the field's path
    │   ├── UnauthorizedError  401   no key, or one that is not known
    │   ├── NotFoundError      404   nothing by that name
    │   ├── TooLargeError      413   above a named limit
    │   └── UnsupportedError   415   a content type or encoding we do not speak
    ├── RetryableError    the same call may succeed later; nothing was decided   → HTTP 503, Retry-After
    ├── PoisonError       this record can never succeed; the next one can        → replay.dead_letters
    ├── PausedError       somebody must look before work goes on; nothing is lost → the worker waits
    └── FatalError        going on would break a promise; the process must end   → exit code 1
        └── ConfigurationError   a setting, a file or the machine is not as it must be: says what to do

Messages carry places and kinds (topic, partition, offset, JSON path, limit), never recorded values or keys.
"""

from __future__ import annotations


class ReplayError(Exception):
    """The root: catching it catches all that is ours, and nothing else."""


class RefusedError(ReplayError):
    """The sender's mistake. `status` is the HTTP answer, `slug` the stable end of the problem's `type`."""

    status = 400
    slug = "refused"
    title = "The request was refused"

    def __init__(self, detail: str, *, path: str | None = None) -> None:
        super().__init__(detail if path is None else f"{path}: {detail}")
        self.detail = detail
        self.path = path


class MalformedError(RefusedError):
    status, slug, title = 400, "malformed", "The body breaks the contract"


class UnauthorizedError(RefusedError):
    status, slug, title = 401, "unauthorized", "A valid key is needed"


class NotFoundError(RefusedError):
    status, slug, title = 404, "not-found", "There is nothing by that name"


class TooLargeError(RefusedError):
    status, slug, title = 413, "too-large", "A limit was exceeded"


class UnsupportedError(RefusedError):
    status, slug, title = 415, "unsupported", "This content is not understood"


class RetryableError(ReplayError):
    """A broker, a store or a queue cannot take it now. HTTP 503 with Retry-After; a worker or a sink backs off."""

    status, slug, title = 503, "unavailable", "Try again later"


class PoisonError(ReplayError):
    """One record that can never be processed. `reason` is from a closed set and goes into the dead letter."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PausedError(ReplayError):
    """The circuit breaker is open: the worker keeps what it has, takes nothing more, and says so until it is restarted."""


class FatalError(ReplayError):
    """The process must end: to go on would lose or double data. A supervisor starts it anew."""


class ConfigurationError(FatalError):
    """Something outside the code must be mended first; the message says what."""
