"""The Dockerfile and the compose file say what the guide promises; `make image` builds and runs the image itself."""

from __future__ import annotations

import fnmatch
import re
import sys
from pathlib import Path
from typing import Any

import image_build
import pytest
from typer.main import get_command

from rerank_integrations.cli.app import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
STAGES = image_build.parse((ROOT / "Dockerfile").read_text("utf-8"))
IMAGE = STAGES[-1]


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    assert set(content["services"]) == {"rerank"}
    assert set(content["volumes"]) == {"indexes", "cache"}
    found: dict[str, Any] = content["services"]["rerank"]
    return found


def options_of(command: list[str]) -> set[str]:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    return {option for parameter in commands[command[0]].params for option in parameter.opts}


def check_command(command: list[str]) -> None:
    assert {word for word in command if word.startswith("--")} <= options_of(command)


def test_the_process_of_the_image_is_the_service_itself() -> None:
    start = [*IMAGE.last("ENTRYPOINT").words, *IMAGE.last("CMD").words]
    # In brackets, so that no shell is between a signal and the service.
    assert IMAGE.last("ENTRYPOINT").is_exec_form and IMAGE.last("CMD").is_exec_form
    assert start[0] == "rerank-integrations"
    check_command(start[1:])


def test_the_user_is_not_root_and_has_a_fixed_number() -> None:
    uid, _, gid = IMAGE.last("USER").text.partition(":")
    assert uid.isdecimal() and gid.isdecimal() and int(uid) >= 1000
    names = [step.name for step in IMAGE.steps]
    assert "RUN" not in names[names.index("USER") :] and "COPY" not in names[names.index("USER") :]


def test_the_health_check_needs_no_program_but_python() -> None:
    probe = IMAGE.last("HEALTHCHECK").text
    assert '["python", "-c", "import urllib.request' in probe and ":8000/ready" in probe
    assert IMAGE.last("EXPOSE").text == "8000"


def test_what_is_copied_is_in_the_context() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    for stage in STAGES:
        for step in stage.steps:
            if step.name == "COPY" and "from" not in step.options:
                sources = step.words[:-1]
                assert all((ROOT / source).exists() for source in sources)
                assert all(any(fnmatch.fnmatch(source, name) for name in allowed) for source in sources)


def test_the_packages_are_those_that_are_tested() -> None:
    arguments = dict(step.text.split("=", 1) for stage in STAGES for step in stage.steps if step.name == "ARG")
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    assert re.search(rf"^torch=={re.escape(arguments['TORCH_VERSION'])}$", constraints, re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(arguments["EXTRAS"].split(",")) <= set(extras)


def test_the_compose_file_starts_what_the_image_is_made_for(service: dict[str, Any]) -> None:
    check_command(service["command"])
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    targets = {volume.partition(":")[2] for volume in service["volumes"]}
    assert targets == set(IMAGE.last("VOLUME").words)
    (port,) = service["ports"]
    # Nobody but this machine, unless somebody decides so.
    assert port == "127.0.0.1:8000:8000"
    variables = {name for name in service["environment"] if name.startswith("RERANK_INTEGRATIONS_SERVER_")}
    assert variables == {"RERANK_INTEGRATIONS_SERVER_TOKEN", "RERANK_INTEGRATIONS_SERVER_WRITABLE"}
