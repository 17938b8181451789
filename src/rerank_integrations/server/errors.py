"""Errors of the service, and the one table of the status code for each error of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rerank_integrations.core.concurrency.cancel import GivenUpError, OutOfTimeError
from rerank_integrations.errors import (
    CheckpointError,
    IndexClosedError,
    IndexExistsError,
    IndexFormatError,
    IndexLockedError,
    IndexMovedError,
    IndexReadError,
    IndexReadOnlyError,
    IndexWriteError,
    InsufficientMemoryError,
    InvalidInputError,
    MissingExtraError,
    ModelMismatchError,
    RemoteError,
    RerankError,
    TextTooLongError,
)


class UnknownIndexError(RerankError):
    """No index of the service has this name."""


class UnknownModelError(RerankError):
    """No model of the service has this name."""


class UnknownPassageError(RerankError):
    """The index stores no passage with this id."""


class HostNotAllowedError(RerankError):
    """The request is for a host that the service is not known by."""


class UnauthorizedError(RerankError):
    """The request has no token, or a wrong one."""


class NotJSONError(RerankError):
    """The body of the request is not JSON."""


class BodyTooLargeError(RerankError):
    """The body of the request is larger than the service accepts."""


class BodyTimeoutError(RerankError):
    """The body of the request did not arrive in time."""


class ClientGoneError(RerankError):
    """The client has closed the connection before it had an answer."""


class TooManyRequestsError(RerankError):
    """The service has as many requests as it accepts at a time."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = max(1, math.ceil(retry_after))


@dataclass(frozen=True)
class Problem:
    """The answer to an error.

    Parameters
    ----------
    status
        HTTP status code.
    code
        A name for programs, which stays the same when the wording of a message changes.
    message
        What the client reads; ``None`` shows the error's own message, for errors about what the client has sent.
        Messages of other errors name files of the server, which only its log shows.
    """

    status: int
    code: str
    message: str | None = None


_INTERNAL = Problem(500, "internal_error", "the service failed; its log has the details under this request's id")
_UNAVAILABLE = "see the log of the service"
_OUT_OF_MEMORY = Problem(503, "out_of_memory", "the service lacks memory for this now")

# An error is answered by the entry of its own class, or of its nearest base class.
STATUS_TABLE: Mapping[type[BaseException], Problem] = {
    InvalidInputError: Problem(422, "invalid_input"),
    TextTooLongError: Problem(422, "text_too_long"),
    NotJSONError: Problem(400, "bad_request"),
    UnauthorizedError: Problem(401, "unauthorized"),
    IndexReadOnlyError: Problem(403, "read_only", "the service does not accept changes: it runs without --writable"),
    UnknownIndexError: Problem(404, "unknown_index"),
    UnknownModelError: Problem(404, "unknown_model"),
    UnknownPassageError: Problem(404, "unknown_passage"),
    BodyTimeoutError: Problem(408, "body_timeout"),
    BodyTooLargeError: Problem(413, "body_too_large"),
    HostNotAllowedError: Problem(421, "host_not_allowed"),
    TooManyRequestsError: Problem(429, "too_many_requests"),
    ClientGoneError: Problem(499, "client_gone"),
    GivenUpError: Problem(499, "client_gone", "the request was given up"),
    OutOfTimeError: Problem(504, "timeout"),
    CheckpointError: Problem(503, "model_unavailable", f"the model cannot be loaded: {_UNAVAILABLE}"),
    MissingExtraError: Problem(503, "model_unavailable", f"the model cannot be loaded: {_UNAVAILABLE}"),
    InsufficientMemoryError: _OUT_OF_MEMORY,
    # Of numpy and of compiled loops, which say only that an allocation failed.
    MemoryError: _OUT_OF_MEMORY,
    RemoteError: Problem(502, "remote_failed", f"the remote reranker gave no scores: {_UNAVAILABLE}"),
    ModelMismatchError: Problem(503, "model_mismatch", f"the index has another model now: {_UNAVAILABLE}"),
    IndexClosedError: Problem(503, "index_unavailable", "the service is stopping"),
    IndexLockedError: Problem(503, "index_unavailable", f"another process has the index: {_UNAVAILABLE}"),
    IndexMovedError: Problem(503, "index_unavailable", f"the index was moved: {_UNAVAILABLE}"),
    IndexReadError: Problem(503, "index_unavailable", f"the index could not be read: {_UNAVAILABLE}"),
    IndexWriteError: Problem(507, "index_not_written", f"the change could not be stored: {_UNAVAILABLE}"),
    IndexExistsError: _INTERNAL,
    IndexFormatError: Problem(500, "index_damaged", f"the index is damaged: {_UNAVAILABLE}"),
    RerankError: _INTERNAL,
    Exception: _INTERNAL,
}


def problem_of(error: BaseException) -> Problem:
    """Return the entry of `STATUS_TABLE` for `error`."""
    return next((STATUS_TABLE[kind] for kind in type(error).__mro__ if kind in STATUS_TABLE), _INTERNAL)
