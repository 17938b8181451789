"""The part that `ColBERTModel` and `CrossEncoderModel` share: a specification and a lease on its loaded copy."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias

from rerank_integrations.core import telemetry
from rerank_integrations.core.checks import require_texts, seconds, whole_number
from rerank_integrations.core.models.checkpoints.files import fingerprint
from rerank_integrations.core.models.checkpoints.options import LoadOptions, ModelKind, portable
from rerank_integrations.core.models.lengths import TruncationNotice
from rerank_integrations.core.models.pool import Lease, Loaded, LoadedT


class SharedModel(ABC, Generic[LoadedT]):
    """A model that is loaded at its first use, as one copy for all instances of equal specification.

    A subclass names its `kind`, loads in `_load`, and returns its further constructor arguments from `_own_options`.

    Parameters
    ----------
    load_options
        The specification: equal ones share one loaded copy.
    batch_size, idle_timeout
        As for `ColBERTModel`.
    """

    kind: ClassVar[ModelKind]
    # Its own methods open spans: nobody else does so around them.
    opens_spans: ClassVar[bool] = True

    def __init__(self, load_options: LoadOptions, batch_size: int, idle_timeout: float | None) -> None:
        self._load_options = load_options
        self._batch_size = whole_number(batch_size, "batch_size", 1)
        self._idle_timeout = None if idle_timeout is None else seconds(idle_timeout, "idle_timeout")
        self._notice = TruncationNotice()
        self._fingerprint: str | None = None
        # Last: a refused argument must not leave a user of the copy behind.
        self._lease: Lease[LoadedT] = Lease(self.kind, load_options, self._load, self._idle_timeout)

    @staticmethod
    @abstractmethod
    def _load(options: LoadOptions) -> LoadedT:
        """Load a copy; the libraries that this needs are imported here."""

    @abstractmethod
    def _own_options(self) -> dict[str, object]:
        """Return the constructor arguments that this class adds to those of loading."""

    def __repr__(self) -> str:
        return f"{_public_class(type(self)).__name__}({self.name!r})"

    def __reduce__(self) -> tuple[Callable[[], AnyModel], tuple[()]]:
        return functools.partial(_public_class(type(self)), **portable(self.options())), ()

    @property
    def name(self) -> str:
        """The name or path that was given."""
        return self._load_options.name_or_path

    @property
    def device(self) -> str:
        """The torch device it runs on: as given, or CUDA where there is one, else the CPU."""
        return self._load_options.resolved_device()

    def _describe(self, span: telemetry.AnySpan, tokens: Sequence[int], batches: Sequence[Sequence[object]]) -> None:
        """Set in `span` where the loaded copy computes, and how much; `tokens` per text, after any cut."""
        span.computed(tokens, batches)
        if span.is_recording:
            options = self._load_options
            dtype = options.dtype if options.is_graph else str(options.resolved_dtype()).removeprefix("torch.")
            span.set(device=self.device, dtype=dtype, backend=options.backend)

    def options(self) -> dict[str, Any]:
        """Return the constructor arguments that differ from the defaults; never the access token."""
        arguments = {
            **self._load_options.arguments(),
            "batch_size": self._batch_size,
            "idle_timeout": self._idle_timeout,
            **self._own_options(),
        }
        defaults = _defaults(_public_class(type(self)))
        return {
            name: value for name, value in arguments.items() if value != defaults.get(name) or name == "name_or_path"
        }

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the checkpoint's files; equal ones stand for equal vectors or scores.

        For a local directory only the files are read; a model on the hub is loaded, since its files may not be on this
        machine yet.
        """
        if self._fingerprint is None:
            if not self._load_options.is_local:
                with self._lease.loaded():
                    pass
            self._fingerprint = fingerprint(self._load_options, self.kind)
        return self._fingerprint

    @property
    def converted_path(self) -> Path | None:
        """The folder of the encoder that was converted for the backend; loads the model.

        ``None`` with ``backend="torch"``, and where the graph strays from torch on this processor and is not used.
        """
        with self._lease.loaded() as loaded:
            return loaded.converted_path

    @property
    def graph(self) -> Path | None:
        """The earlier name of `converted_path`."""
        return self.converted_path

    def unload(self) -> None:
        """Drop the loaded copy, for every instance that shares it; the next use loads it again.

        Calls in flight finish on it; afterwards its memory is returned to the operating system.
        """
        self._lease.unload()

    def token_spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Return the character span of each token of each text, however long; markers are left out."""
        require_texts(texts)
        if not texts:
            return []
        with self._lease.loaded() as loaded:
            return loaded.spans(list(texts))


AnyModel: TypeAlias = "SharedModel[Loaded]"


def _public_class(cls: type[AnyModel]) -> type[AnyModel]:
    """Return the class of this package that `cls` is or derives from: its constructor takes what `options` returns."""
    return next(base for base in cls.__mro__ if SharedModel in base.__bases__)


@functools.cache
def _defaults(cls: type[AnyModel]) -> Mapping[str, object]:
    return {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}
