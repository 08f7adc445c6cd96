"""What a server refuses, as exceptions that tell field, fault and way out.

A server's message has the form `field: what is wrong; what to do`. Where it is about no field, or
has no way out, that part is empty.
"""

from __future__ import annotations

import re
from typing import Any

import grpc

_FIELD = re.compile(r"([a-z_][a-z0-9_]*(?:\[\d+\]|\.[a-z_][a-z0-9_]*)*): ")
# The first semicolon outside of what the server quotes.
_WAY_OUT = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^";]|;(?! ))*); (.*)', re.DOTALL)


class Error(Exception):
    """A call that failed. Every subclass stands for one gRPC code; this one for all others."""

    def __init__(self, code: grpc.StatusCode, message: str, reason: str = "",
                 retry_after_seconds: float | None = None, can_retry: bool = True) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        # A snake_case word for programs: invalid_recipe, prompt_too_long, ... Empty where no server
        # of this kind was reached.
        self.reason = reason
        # The server's word on when to come again; None: it said none.
        self.retry_after_seconds = retry_after_seconds
        # False where the server said that the same request can never be served.
        self.can_retry = can_retry
        match = _FIELD.match(message)
        # The request's field that is at fault, such as recipe.sink_tokens.
        self.field = match.group(1) if match else ""
        rest = message[match.end():] if match else message
        parts = _WAY_OUT.fullmatch(rest)
        self.problem = parts.group(1) if parts else rest
        self.way_out = parts.group(2) if parts else ""


class InvalidArgument(Error):
    """The request is wrong: `field` says where, `way_out` what would be right."""


class NotFound(Error):
    """A recipe, model, adapter, experiment or request that does not exist."""


class AlreadyExists(Error):
    """The request id belongs to a live request."""


class OutOfRange(Error):
    """The prompt is longer than the model's context."""


class ResourceExhausted(Error):
    """Queue or memory is full; `retry_after_seconds` and `can_retry` say what comes of waiting."""


class Unavailable(Error):
    """No server answers, or it shuts down: send the request elsewhere or again."""


class DeadlineExceeded(Error):
    """The call's `timeout_seconds` were over."""


class Cancelled(Error):
    """The call was cancelled, by this client or by an abort before it was accepted."""


class Unauthenticated(Error):
    """The token is missing or wrong."""


class PermissionDenied(Error):
    """The token is right and does not allow this."""


_CLASSES: dict[grpc.StatusCode, type[Error]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}


def from_rpc_error(error: Any) -> Error:
    """The exception for what grpc or grpc.aio raised."""
    trailers = {key: value for key, value in error.trailing_metadata() or ()}
    pushback = trailers.get("grpc-retry-pushback-ms")
    milliseconds = int(pushback) if pushback and re.fullmatch(r"-?\d+", pushback) else None
    never = milliseconds is not None and milliseconds < 0
    return _CLASSES.get(error.code(), Error)(
        error.code(), error.details() or "", trailers.get("swaa-error-reason", ""),
        None if never or milliseconds is None else milliseconds / 1000, not never)
