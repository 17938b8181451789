"""Where a measurement was made: machine, system and versions, without which its milliseconds say little."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import rerank_integrations
from rerank_integrations.core.index.plaid.pool import workers

_PACKAGES = ("torch", "transformers", "sentence-transformers", "numpy", "numba", "faiss-cpu", "bm25s", "ir-measures")


def origin() -> dict[str, Any]:
    """Return processor, cores, memory, GPUs, system, versions and time, as JSON can hold them.

    ``memory_gb`` is in units of 2**30 bytes and ``None`` where the system does not tell; ``gpus`` is empty without one.
    Loads torch.
    """
    return {
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": workers(),
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {"rerank-integrations": rerank_integrations.__version__} | _versions(),
    }


def gpu_mb() -> float | None:
    """Return the most that torch has held on all GPUs together, in units of 2**20 bytes; ``None`` without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return sum(torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count())) / 2**20


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    if platform.system() == "Darwin":
        told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        if told.stdout.strip():
            return told.stdout.strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES if any(distributions(name=name))}
