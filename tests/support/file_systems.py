"""Full and read-only file systems that only one child process sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from toy import child_env


def run_mounted(mount: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code with a mount that no other process sees; needs Linux's user namespaces, or root."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    shell = f'{mount} && exec "$PYTHON" -c "$CODE" "$@"'
    return subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", shell, "sh", *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**child_env(), "PYTHON": sys.executable, "CODE": code},
    )  # fmt: skip


def require_mounts() -> None:
    if shutil.which("unshare") is None or run_mounted("true", "").returncode != 0:
        pytest.skip("this system lets nobody mount a file system of their own")
