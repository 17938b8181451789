"""Collect the runs that LangChain's callbacks see."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler


@dataclass
class Run:
    name: str
    parent: UUID | None
    metadata: dict[str, Any]
    tags: list[str]
    inputs: Any
    ends: list[Any] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.runs: dict[UUID, Run] = {}
        self._lock = threading.Lock()

    def named(self, name: str) -> Run:
        (run,) = self.all_named(name)
        return run

    def all_named(self, name: str) -> list[Run]:
        return [run for run in self.runs.values() if run.name == name]

    def id_of(self, name: str) -> UUID:
        return next(run_id for run_id, run in self.runs.items() if run.name == name)

    def trees(self) -> list[Any]:
        """Return every run with its children, without ids, in the order of the inputs."""
        found = [self._tree(run_id) for run_id, run in self.runs.items() if run.parent is None]
        return sorted(found, key=lambda tree: str(tree["inputs"]))

    def balanced(self) -> bool:
        return all(len(run.ends) + len(run.errors) == 1 for run in self.runs.values())

    def _tree(self, run_id: UUID) -> Any:
        run = self.runs[run_id]
        children = [self._tree(child) for child, below in self.runs.items() if below.parent == run_id]
        return {
            "name": run.name,
            "metadata": run.metadata,
            "tags": sorted(run.tags),
            "inputs": run.inputs,
            "ends": run.ends,
            "errors": [str(error) for error in run.errors],
            "children": sorted(children, key=lambda child: child["name"]),
        }

    def _start(self, run_id: UUID, inputs: Any, kwargs: Any) -> None:
        with self._lock:
            assert run_id not in self.runs
            self.runs[run_id] = Run(
                kwargs["name"], kwargs["parent_run_id"], kwargs["metadata"], kwargs["tags"] or [], inputs
            )

    def on_retriever_start(self, serialized: Any, query: str, *, run_id: UUID, **kwargs: Any) -> None:
        self._start(run_id, query, kwargs)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id].ends.append(documents)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id].errors.append(error)

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._start(run_id, inputs, kwargs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id].ends.append(outputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id].errors.append(error)
