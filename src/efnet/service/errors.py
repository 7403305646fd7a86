"""A request that is not served, with one sentence for its sender."""

from __future__ import annotations


class RefusedError(Exception):
    """Becomes an answer with this status and `{"error": {"code", "message"}}`.

    Args:
        status: of HTTP.
        code: for programs, such as `too_many_pixels`.
        message: for people: what is wrong, and the remedy.
        retry_after: seconds after which another try makes sense.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
