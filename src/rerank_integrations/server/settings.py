"""Settings of the service: arguments, or environment variables of the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rerank_integrations.errors import InvalidInputError

ENV_PREFIX = "RERANK_INTEGRATIONS_SERVER_"


class ServerSettings(BaseSettings):
    """Settings of the service, each also read from ``RERANK_INTEGRATIONS_SERVER_<NAME>``; an argument goes first.

    Parameters
    ----------
    token
        What a client sends as ``Authorization: Bearer <token>``, at least 8 characters. Without one, anybody who
        reaches the port may call. ``/health``, ``/ready`` and the page at ``/`` never ask for it; what the page then
        shows does.
    writable
        Whether clients may store and delete passages. It is off by default, so that a search service that leaks to a
        network cannot be emptied; the indexes must be open for writing too.
    page
        Whether ``/`` is a page on which people search.
    warm_up
        Whether models are loaded and search loops compiled at the start; ``/ready`` answers 503 until then.
    max_requests
        Requests that are read, waiting or computed at a time. One more is answered by 429 and ``Retry-After``.
    max_body_bytes
        Bytes of a request's body; a larger one is answered by 413, whether or not it states its length.
    max_texts
        Texts of a request: documents to rerank, passages to store or look up, texts to encode.
    max_k
        Passages that a search returns at most.
    max_bi_encoder_passages
        Passages of an index up to which the bi-encoder encodes them: its vectors are in memory, 1.5 KB each with the
        starter model.
    max_batch_texts
        Texts of different requests that are scored in one batch; 1 scores each request by itself. A larger request is a
        batch of its own.
    body_timeout
        Seconds for receiving a request's body, then 408. `serve` also closes a connection that sends no whole head, or
        reads nothing of an answer, for so long.
    timeout
        Seconds for an answer, the wait in the queue included, then 504.
    write_timeout
        The same for storing and deleting. A write that has begun is finished even then.
    drain_seconds
        Seconds after the first signal to stop in which ``/ready`` is already red and requests are still accepted, so
        that a load balancer notices.
    shutdown_timeout
        Seconds after that for requests that have begun.

    Raises
    ------
    InvalidInputError
        For an unknown setting, or a value of a wrong kind.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    token: SecretStr | None = Field(default=None, min_length=8)
    writable: bool = False
    page: bool = True
    warm_up: bool = True
    max_requests: int = Field(default=128, ge=1)
    max_body_bytes: int = Field(default=10 * 2**20, ge=1)
    max_texts: int = Field(default=1000, ge=1)
    max_k: int = Field(default=1000, ge=1)
    max_bi_encoder_passages: int = Field(default=100_000, ge=0)
    max_batch_texts: int = Field(default=256, ge=1)
    body_timeout: float = Field(default=30.0, gt=0)
    timeout: float = Field(default=30.0, gt=0)
    write_timeout: float = Field(default=300.0, gt=0)
    drain_seconds: float = Field(default=0.0, ge=0)
    shutdown_timeout: float = Field(default=30.0, gt=0)

    # Editors and type checkers see the signature of the fields.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InvalidInputError(_message(error, values)) from None


def _message(error: ValidationError, values: dict[str, Any]) -> str:
    problems = []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        # A token is never shown, nor what the environment contains.
        given = f" is {values[name]!r}" if name in values and name != "token" else ""
        problems.append(f"the setting {name}{given}: {problem['msg']}")
    return "; ".join(problems)
