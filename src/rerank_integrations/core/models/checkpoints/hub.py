"""The model hub: whether it may be asked, the arguments of each look-up, and errors for models that are not found."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.errors import CheckpointError

# A reachable hub answers within so many seconds; a user's HF_HUB_ETAG_TIMEOUT overrides this.
_TIMEOUT_SECONDS = 3.0
# An answer is reused for so many seconds: a load looks up a dozen files, and each would ask again.
_ANSWER_SECONDS = 30.0

# The time of the last question to each endpoint, and why it was not reached (None if it was).
_answers: dict[str, tuple[float, str | None]] = {}


def hub_arguments(options: LoadOptions) -> dict[str, Any]:
    """Return the arguments of every look-up of a model's files.

    If the hub must not be asked or cannot be reached, they restrict the look-up to the cache. This holds for one load:
    the libraries' own switch would hold for everything in this process.
    """
    return {
        "token": options.token,
        "cache_folder": cache_of(options),
        "revision": options.revision,
        "local_files_only": not options.is_local and why_not_asked(options) is not None,
    }


def cache_of(options: LoadOptions) -> str | None:
    """Return the user's cache folder, ``None`` for the hub client's own."""
    # Only sentence-transformers reads this variable; the files that are looked up here must come from the same folder.
    return options.cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME")


def is_hub_name(name: str) -> bool:
    """Return whether the hub could hold a model of that name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def why_not_asked(options: LoadOptions) -> str | None:
    """Return why the files of a model come only from the cache; ``None`` if the hub is asked for them.

    This asks the hub whether it answers, at most once in 30 seconds, and waits 3 seconds at most.
    """
    from huggingface_hub import constants

    if options.local_files_only:
        return "the hub was not asked, since local_files_only is True"
    if constants.is_offline_mode():
        return "the hub was not asked, since HF_HUB_OFFLINE is set"
    endpoint = constants.ENDPOINT
    asked_at, reason = _answers.get(endpoint, (-_ANSWER_SECONDS, None))
    if time.monotonic() - asked_at >= _ANSWER_SECONDS:
        reason = _ask(endpoint)
        _answers[endpoint] = time.monotonic(), reason
    return reason


def _ask(endpoint: str) -> str | None:
    """Return why no hub answers at `endpoint`; ``None`` if one does, whatever the answer."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _TIMEOUT_SECONDS)
    failures: list[str] = [f"no answer within {timeout:g} s"]

    def ask() -> None:
        try:
            # The client's own session has the user's proxies and certificates.
            get_session().head(endpoint, timeout=timeout)
            failures.clear()
        except Exception as error:
            failures[0] = f"{type(error).__name__}: {error}"

    # On a separate thread: without a network a name resolver blocks for longer than any time-out.
    thread = threading.Thread(target=ask, name="hub", daemon=True)
    thread.start()
    thread.join(timeout)
    return f"the hub at {endpoint} was not reached over the network ({failures[0]})" if failures else None


def absent_checkpoint(options: LoadOptions) -> CheckpointError:
    """Return the error for a name or path with neither config.json nor modules.json."""
    name = options.name_or_path
    start = f"no checkpoint at {name!r}: "
    if Path(name).is_dir():
        return CheckpointError(
            f"{start}neither config.json nor modules.json was found in that folder; expected a complete checkpoint"
        )
    if not is_hub_name(name):
        return CheckpointError(
            f"{start}there is no such folder, and no model on the hub can be named so; expected a local directory or "
            "the name of a model on the hub"
        )
    return CheckpointError(
        f"{start}there is no such folder, and {_where_searched(options)}; expected a local directory or the name of a "
        f"model on the hub{offline_remedy(options)}"
    )


def _where_searched(options: LoadOptions) -> str:
    reason = why_not_asked(options)
    if reason is None:
        return "neither config.json nor modules.json was found on the hub"
    return f"neither config.json nor modules.json was found in the cache folder {_cache_folder(options)}; {reason}"


def _cache_folder(options: LoadOptions) -> str:
    from huggingface_hub import constants

    return cache_of(options) or constants.HF_HUB_CACHE


def offline_remedy(options: LoadOptions) -> str:
    """Return the advice of an error if the hub was not asked: what works without it. Otherwise an empty string."""
    if options.is_local or why_not_asked(options) is None:
        return ""
    if options.local_files_only:
        return ". local_files_only=False fetches it"
    return (
        ". Without a network these work: the path of a folder, a model in the cache (with local_files_only=True nobody "
        "is asked), and 'starter'"
    )


def offline_note(options: LoadOptions) -> str:
    """Return the note of a load's error that files came only from the cache, and why; otherwise an empty string."""
    if options.is_local or not is_hub_name(options.name_or_path):
        return ""
    reason = why_not_asked(options)
    if reason is None:
        return ""
    return f"; its files were looked for in the cache folder {_cache_folder(options)} alone: {reason}"
