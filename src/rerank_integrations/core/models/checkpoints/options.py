"""The options of loading a model, and the device and number format that they mean on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

ModelKind: TypeAlias = Literal["colbert", "cross-encoder"]
"""The kind of a loaded model."""

Backend: TypeAlias = Literal["torch", "onnx", "openvino"]
"""The library that computes an encoder's forward pass."""

DType: TypeAlias = Literal["auto", "float32", "bfloat16", "float16", "int8"]
"""The number format that a model computes in; which of them a backend has, `ColBERTModel` says."""

STARTER = "starter"

# ONNX Runtime has no bfloat16 on a CPU, OpenVINO no float16 that computes faster.
_DTYPES: dict[Backend, tuple[DType, ...]] = {
    "torch": ("auto", "float32", "bfloat16", "float16"),
    "onnx": ("auto", "float32", "int8"),
    "openvino": ("auto", "float32", "bfloat16", "int8"),
}


@dataclass(frozen=True)
class LoadOptions:
    """The specification of a loaded model: models of equal options share one loaded copy."""

    name_or_path: str
    device: str | None = None
    dtype: DType = "auto"
    backend: Backend = "torch"
    revision: str | None = None
    cache_folder: str | None = None
    local_files_only: bool = False
    token: str | bool | None = None
    trust_remote_code: bool = False
    model_kwargs: Mapping[str, object] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name_or_path, str | Path) or not str(self.name_or_path):
            raise InvalidInputError(f"model name is {self.name_or_path!r}; expected a name or a path")
        object.__setattr__(self, "name_or_path", str(self.name_or_path))
        if self.backend not in _DTYPES:
            raise InvalidInputError(f"backend is {self.backend!r}; expected one of {', '.join(_DTYPES)}")
        dtypes = _DTYPES[self.backend]
        if self.dtype not in dtypes:
            raise InvalidInputError(
                f"dtype is {self.dtype!r}; expected one of {', '.join(dtypes)} with backend={self.backend!r}"
            )
        if self.is_graph and self.device not in (None, "cpu"):
            raise InvalidInputError(f"device is {self.device!r}; expected 'cpu' with backend={self.backend!r}")

    @property
    def is_starter(self) -> bool:
        """True if this names the model of the package; a folder of that name is ``./starter``."""
        return self.name_or_path == STARTER

    @property
    def is_graph(self) -> bool:
        """True if the encoder runs as a graph on the CPU instead of in torch."""
        return self.backend != "torch"

    @property
    def is_local(self) -> bool:
        """True if all files are certainly on this machine."""
        return self.is_starter or Path(self.name_or_path).is_dir()

    def resolved_device(self) -> str:
        """Return the torch device of the loaded model."""
        return "cpu" if self.is_graph else resolve_device(self.device)

    def resolved_dtype(self) -> torch.dtype:
        """Return the torch dtype of the loaded model; with a graph backend, that of the modules outside the graph."""
        return resolve_dtype("float32" if self.is_graph else self.dtype, self.resolved_device())

    def arguments(self) -> dict[str, Any]:
        """Return the fields that may be stored: all but the access token and those that are ``None``."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "token"}
        fields["model_kwargs"] = dict(self.model_kwargs) if self.model_kwargs else None
        return {name: value for name, value in fields.items() if value is not None}

    def key(self, kind: ModelKind) -> tuple[str, ...]:
        """Return the identity of the loaded copy: kind, location, revision, device, dtype, backend, extras."""
        path = Path(self.name_or_path)
        location = str(path.resolve()) if path.is_dir() and not self.is_starter else self.name_or_path
        extras = json.dumps(dict(self.model_kwargs or {}), sort_keys=True, default=repr)
        return (
            kind,
            location,
            str(self.revision),
            self.resolved_device(),
            self.dtype,
            self.backend,
            str(self.cache_folder),
            str(self.trust_remote_code),
            extras,
        )


def portable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's arguments with an absolute path of its folder, so that they hold in any working directory."""
    name = arguments.get("name_or_path")
    if isinstance(name, str) and name != STARTER and Path(name).is_dir():
        return {**arguments, "name_or_path": str(Path(name).resolve())}
    return dict(arguments)


def resolve_device(device: str | None) -> str:
    """Return `device`, or ``"cuda"`` where there is one and ``"cpu"`` elsewhere; MPS only if `device` says so."""
    if device is not None:
        return str(device)
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_dtype(dtype: DType, device: str) -> torch.dtype:
    """Return the torch dtype; ``"auto"`` is bfloat16 where the processor computes in it, else float32.

    On a CPU that means AVX-512 BF16 or AMX (with AMX 3 to 4 times as fast as float32 on encoders of 22 to 110 million
    parameters, by ``python benchmarks/dtype.py``); without them bfloat16 is emulated, and slower.
    """
    import torch

    if dtype != "auto":
        resolved: torch.dtype = getattr(torch, dtype)
        return resolved
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "cpu":
        native = _cpu_has("_is_avx512_bf16_supported") or _cpu_has("_is_amx_tile_supported")
    else:
        native = False
    return torch.bfloat16 if native else torch.float32


def _cpu_has(probe: str) -> bool:
    import torch

    check = getattr(torch.cpu, probe, None)
    return bool(check and check())
