"""Build and run the image of the Dockerfile without a container runtime, by its steps in overlays of this machine.

    PYTHONPATH=tests/support python -m image_build

needs Linux, root and a kernel that mounts overlays. This machine takes the place of the base image, with the
interpreter that runs this. Each stage has a file system of its own. The last one is started as the image says: as its
user, read-only but for its volumes, with no network but the loopback. Its health check must pass, a request be
answered, and SIGTERM end it. TORCH_INDEX is the build argument of that name, IMAGE_FOLDER where the stages are made.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
# An empty one takes torch from where pip looks by itself.
BUILD_ARGUMENTS = {"TORCH_INDEX": os.environ.get("TORCH_INDEX", "")}
_STARTED_WITHIN = 600.0
_RERANK = """
import json, urllib.request
body = {"query": "open an archive", "documents": ["csv reads rows", "zipfile opens an archive"]}
kind = {"Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8000/v1/rerank", json.dumps(body).encode(), kind)
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


@dataclass
class Step:
    """An instruction of a Dockerfile, its options (``--from=…``) and the rest of its line."""

    name: str
    options: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments of the form with brackets, or of the one without."""
        words = json.loads(self.text) if self.is_exec_form else shlex.split(self.text)
        return [str(word) for word in words]

    @property
    def is_exec_form(self) -> bool:
        return self.text.startswith("[")


@dataclass
class Stage:
    """A stage: what it is built from, its steps, and the settings that they leave."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"

    def last(self, name: str) -> Step:
        return [step for step in self.steps if step.name == name][-1]


def parse(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[Stage] = []
    shared: dict[str, str] = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, rest = line.partition(" ")
        options: dict[str, str] = {}
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            options[match[1]] = match[2]
            rest = rest[match.end() :]
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages.append(Stage(string.Template(base).substitute(shared), alias or str(len(stages))))
        elif not stages:
            assert name == "ARG", line
            key, _, value = rest.partition("=")
            shared[key] = value
        else:
            stages[-1].steps.append(Step(name, options, rest))
    return stages


def pairs(text: str) -> dict[str, str]:
    """Return the variables of ``A=1 B=2``."""
    return dict(word.split("=", 1) for word in shlex.split(text))


class Builder:
    """The stages' file systems, each a folder of what differs from this machine's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stages: dict[str, Stage] = {}

    def files(self, stage: Stage) -> Path:
        return self._folder / stage.name / "files"

    def build(self, stage: Stage) -> None:
        assert stage.base.startswith("python:"), stage.base
        self.stages[stage.name] = stage
        self._prepare(stage)
        for step in stage.steps:
            started = time.perf_counter()
            self._take(stage, step)
            print(f"{stage.name}: {step.name} {step.text[:90]} ({time.perf_counter() - started:.1f} s)", flush=True)

    def _prepare(self, stage: Stage) -> None:
        """Make the interpreter the one of the base image, readable by everyone."""
        for name in ("files", "work", "root"):
            (self._folder / stage.name / name).mkdir(parents=True)
        programs = Path(sys.base_prefix, "bin").resolve()
        stage.environment["PATH"] = f"{programs}:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        self._run(stage, shlex.join(["chmod", "a+rx", *map(str, [programs, *programs.parents])]), {})

    def _take(self, stage: Stage, step: Step) -> None:
        if step.name == "ARG":
            name, _, default = step.text.partition("=")
            stage.arguments[name] = BUILD_ARGUMENTS.get(name, default)
        elif step.name == "ENV":
            values = pairs(step.text)
            stage.environment |= {k: string.Template(v).substitute(stage.environment) for k, v in values.items()}
        elif step.name == "WORKDIR":
            stage.folder = step.text
            self._run(stage, f"mkdir -p {step.text}", {}, folder="/")
        elif step.name == "COPY":
            self._copy(stage, step)
        elif step.name == "RUN":
            self._run(stage, step.text, stage.arguments)
        elif step.name not in ("LABEL", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"):
            raise AssertionError(f"{step.name} is no instruction that this knows")

    def _copy(self, stage: Stage, step: Step) -> None:
        *sources, target = step.words
        source_root = self.files(self.stages[step.options["from"]]) if "from" in step.options else ROOT
        at = self.files(stage) / Path(stage.folder, target).relative_to("/")
        for source in sources:
            path = source_root / source.lstrip("/")
            # A file goes into a folder under its name; of a folder the content is copied.
            destination = at / path.name if target.endswith("/") and path.is_file() else at
            destination.parent.mkdir(parents=True, exist_ok=True)
            ignored = shutil.ignore_patterns("__pycache__")
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            keywords: dict[str, Any] = {"symlinks": True, "ignore": ignored} if path.is_dir() else {}
            copy(path, destination, **keywords)

    def _run(self, stage: Stage, command: str, arguments: Mapping[str, str], folder: str | None = None) -> None:
        environment = {**_of_this_machine(), **stage.environment, **arguments, "HOME": "/root"}
        inside = f"cd {folder or stage.folder} && exec sh -c {shlex.quote(command)}"
        program = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
        script = f"{self.mount(stage)}\nexec chroot . sh -ec {shlex.quote(inside)}"
        subprocess.run([*program, script], check=True, env=environment)

    def mount(self, stage: Stage) -> str:
        """Return commands that mount a stage's file system and go there."""
        at = self._folder / stage.name
        options = f"lowerdir=/,upperdir={at}/files,workdir={at}/work"
        return (
            f"mount -t overlay overlay -o {options} {at}/root\ncd {at}/root\n"
            "mount --rbind /proc proc; mount --rbind /dev dev"
        )


def _of_this_machine() -> dict[str, str]:
    """Return how packages are fetched here, as a build with a container runtime is given it."""
    names = [name for name in os.environ if name.startswith(("PIP_", "SSL_")) or name.lower().endswith("_proxy")]
    # What `make` sets names a file of the checkout.
    return {name: os.environ[name] for name in names if "CONSTRAINT" not in name}


@contextlib.contextmanager
def started(builder: Builder, stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """Run the image: as its user, with volumes, everything else read-only, and only the loopback interface."""
    uid, gid = stage.last("USER").text.split(":")
    lines = [builder.mount(stage)]
    for volume in stage.last("VOLUME").words:
        at = builder.files(stage) / volume.lstrip("/")
        named = at.parent / f"volume{volume.replace('/', '-')}"
        # A new volume has the content and the owner of the image's folder.
        lines.append(f"cp -a {at} {named}; mount --bind {named} {volume.lstrip('/')}")
    lines += ["mount -t tmpfs tmpfs tmp", "mount -o remount,ro,bind .", "ip link set lo up || ifconfig lo up"]
    start = [*stage.last("ENTRYPOINT").words, *stage.last("CMD").words]
    user = f"setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs --bounding-set=-all"
    lines.append(f"exec chroot . {user} env -C {stage.folder} {shlex.join(start)}")
    command = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-ec", "\n".join(lines)]
    process = subprocess.Popen(command, env=stage.environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def inside(process: subprocess.Popen[bytes], stage: Stage, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command beside the image's process, as its user."""
    uid, gid = stage.last("USER").text.split(":")
    enter = ["nsenter", "--target", str(process.pid), "--mount", "--net", "--root", "--wd"]
    user = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups"]
    return subprocess.run([*enter, *user, *command], env=stage.environment, capture_output=True, text=True)


def check(builder: Builder, stage: Stage) -> None:
    """Start the image, wait for its health check, ask it, and end it."""
    probe = json.loads(stage.last("HEALTHCHECK").text.partition("CMD ")[2])
    with started(builder, stage) as process:
        began = time.monotonic()
        while (health := inside(process, stage, probe)).returncode != 0:
            assert process.poll() is None, f"the image ended: {process.returncode}"
            assert time.monotonic() - began < _STARTED_WITHIN, health.stderr
            time.sleep(1)
        print(f"healthy after {time.monotonic() - began:.1f} s", flush=True)
        answer = inside(process, stage, ["python", "-c", _RERANK])
        assert answer.returncode == 0, answer.stderr
        print(answer.stdout)
        assert json.loads(answer.stdout)["results"][0]["index"] == 1
        identity = Path(f"/proc/{process.pid}/status").read_text("utf-8")
        assert re.search(r"^Uid:\s+10001\s+10001\s+10001", identity, re.MULTILINE), identity
        write = inside(process, stage, ["python", "-c", "open('/opt/venv/x', 'w')"])
        assert write.returncode == 1, "the image's files can be written"
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=120)
        print(f"SIGTERM: ended with {code}")
        assert code == 0


def main() -> None:
    """Build, run and check."""
    with tempfile.TemporaryDirectory(prefix="image-", dir=os.environ.get("IMAGE_FOLDER")) as folder:
        builder = Builder(Path(folder))
        for stage in parse(DOCKERFILE.read_text("utf-8")):
            builder.build(stage)
        size = subprocess.run(["du", "-sm", str(builder.files(stage))], capture_output=True, text=True, check=True)
        print(f"beside the base image: {size.stdout.split()[0]} MB", flush=True)
        check(builder, stage)


if __name__ == "__main__":
    main()
