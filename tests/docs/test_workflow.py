"""The workflow on GitHub runs the sessions that .ci/run does, on every Python that the package supports."""

from __future__ import annotations

import re
from typing import Any

import yaml
from guides import ROOT

WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))


def test_every_session_is_run() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    sessions = set(re.findall(r'^ *session "[^"]+" ([\w-]+)$', script, re.MULTILINE))
    # Checks run beside the slow tests there; on GitHub each Python has a job of its own.
    expected = sessions - {"test", "pythons"} | {"check", "docs"}
    assert set(WORKFLOW["jobs"]["session"]["strategy"]["matrix"]["session"]) == expected


def test_every_python_is_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    supported = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == supported
