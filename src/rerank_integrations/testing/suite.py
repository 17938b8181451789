"""The parts that every suite shares: checks for rerankers and retrievers alike, and a runner without pytest."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
import threading
import unittest
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rerank_integrations.errors import InvalidInputError
from rerank_integrations.testing.drivers import (
    QUERIES,
    Component,
    ConformanceError,
    Driver,
    Item,
    Native,
    NotApplicable,
    Recording,
    close,
    require,
)

# The arguments and options of a component have far fewer characters, the weights of any model far more.
_MAX_WRITTEN_CHARACTERS = 20_000
_THREADS = 16


class PlannedError(Exception):
    """The error that a suite raises inside a component's model."""


class Conformance:
    """The checks that hold for rerankers and retrievers alike; a suite adds its own.

    Each method whose name begins with ``test_`` is a check: its docstring says what it demands and why. To skip or
    expect the failure of one, override it in your class.
    """

    count_argument: ClassVar[str]
    """The constructor's argument for how many results to return."""

    def driver(self) -> Driver:
        """Return the translation to the framework."""
        raise NotImplementedError

    def _build(self, **options: Any) -> Component:
        raise NotImplementedError

    def _build_hooked(self, hook: Callable[[], None]) -> Component | None:
        raise NotImplementedError

    def _call(self, component: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        raise NotImplementedError

    async def _acall(self, component: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        raise NotImplementedError

    def _call_async(self, component: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        return asyncio.run(self._acall(component, query, recording))

    def _items(self, results: list[Native]) -> list[Item]:
        return [self.driver().item(result) for result in results]

    def _answer(self, component: Component, query: str) -> list[Item]:
        return self._items(self._call(component, query))

    def _with_count(self, count: int) -> Component:
        return self._build(**{self.count_argument: count})

    def _hooked(self, hook: Callable[[], None]) -> Component:
        component = self._build_hooked(hook)
        if component is None:
            raise NotApplicable("the suite has no hooked component")
        return component

    def test_calls_are_repeatable(self) -> None:
        """Equal calls have equal answers.

        Caches, evaluations and tests rely on it.
        """
        component = self._build()
        first = self._answer(component, QUERIES[0])
        self._call(component, QUERIES[1])
        require(close(self._answer(component, QUERIES[0]), first), "a second equal call gave another answer")

    def test_async_equals_sync(self) -> None:
        """The asynchronous call gives what the synchronous one gives.

        An application that moves to a server must not get other results.
        """
        component = self._build()
        for query in QUERIES:
            expected = self._answer(component, query)
            result = self._items(asyncio.run(self._acall(component, query)))
            require(close(result, expected), f"the asynchronous answer to {query!r} differs from the synchronous one")

    def test_16_threads_equal_serial_calls(self) -> None:
        """One component called from 16 threads gives what it gives one call at a time.

        Servers share a component among threads, and both frameworks batch on threads.
        """
        component = self._build()
        queries = QUERIES * _THREADS
        serial = {query: self._answer(component, query) for query in QUERIES}
        with ThreadPoolExecutor(_THREADS) as pool:
            answers = list(pool.map(lambda query: self._answer(component, query), queries))
        differing = sum(not close(answer, serial[query]) for query, answer in zip(queries, answers, strict=True))
        require(differing == 0, f"{differing} of {len(queries)} answers differ from the serial ones")

    def test_16_tasks_equal_serial_calls(self) -> None:
        """One component awaited by 16 tasks at once gives what it gives one call at a time.

        An asynchronous server answers its requests so.
        """
        component = self._build()
        queries = QUERIES * (_THREADS // len(QUERIES))
        serial = {query: self._answer(component, query) for query in QUERIES}

        async def gather() -> list[list[Native]]:
            return list(await asyncio.gather(*(self._acall(component, query) for query in queries)))

        answers = [self._items(results) for results in asyncio.run(gather())]
        differing = sum(not close(answer, serial[query]) for query, answer in zip(queries, answers, strict=True))
        require(differing == 0, f"{differing} of {len(queries)} answers differ from the serial ones")

    def test_event_loop_is_free(self) -> None:
        """The asynchronous call does not run the model on the thread of the event loop.

        All other requests of an asynchronous server wait for as long as its event loop is blocked.
        """
        seen: set[int] = set()
        component = self._hooked(lambda: seen.add(threading.get_ident()))

        async def call() -> int:
            await self._acall(component, QUERIES[0])
            return threading.get_ident()

        loop_thread = asyncio.run(call())
        require(seen, "the hook was not called; the hooked component must call it from within its model")
        require(loop_thread not in seen, "the model ran on the event loop's thread, which blocks every other task")

    def test_no_query(self) -> None:
        """A query of ``None`` is refused by an error that names the query, or leaves nothing to do.

        A chain whose key is misspelt passes ``None``; an error from inside a tokenizer does not say so. Accepted is a
        ValueError or TypeError whose message has the word "query", an empty answer, or the candidates as they came.
        """
        component = self._build()
        try:
            answer = self._answer(component, None)  # type: ignore[arg-type]
        except Exception as error:
            require(_is_clear(error, "query"), f"None as the query raised {shown(error)}, which does not name it")
        else:
            self._require_no_ranking(answer)

    def _require_no_ranking(self, answer: list[Item]) -> None:
        require(answer == [], "None as the query was answered as if it were a text")

    def test_blank_query(self) -> None:
        """An empty query and one of blanks are answered, or refused by an error that names the query.

        Users submit empty forms.
        """
        component = self._build()
        self._require_blank_query(component, "")
        self._require_blank_query(component, " \n")

    def _require_blank_query(self, component: Component, query: str) -> None:
        try:
            answer = self._answer(component, query)
        except Exception as error:
            require(_is_clear(error, "query"), f"the query {query!r} raised {shown(error)}, which does not name it")
        else:
            self._require_finite(answer, f"the query {query!r}")

    def test_long_query(self) -> None:
        """A query of 3,000 words is answered, or refused by an error that says that it is too long.

        Users paste whole letters into a search box.
        """
        component = self._build()
        try:
            answer = self._answer(component, "why is Mars red and " * 600)
        except Exception as error:
            clear = _is_clear(error, "query", "long", "length")
            require(clear, f"a query of 3,000 words raised {shown(error)}, which does not say that it is too long")
        else:
            self._require_finite(answer, "a query of 3,000 words")

    def test_scores_are_floats(self) -> None:
        """A score is a Python float, and no NumPy or torch scalar.

        Those break JSON, and a torch scalar may keep a whole graph in memory.
        """
        scores = [item.score for item in self._answer(self._build(), QUERIES[0])]
        if any(score is None for score in scores):
            raise NotApplicable("the component returns no scores")
        kinds = sorted({type(score).__name__ for score in scores if type(score) is not float})
        require(not kinds, f"scores are of type {', '.join(kinds)}; expected float")

    def test_best_comes_first(self) -> None:
        """The results are in descending order of their scores.

        Both frameworks define the first result as the best, and cut from the end.
        """
        scores = [item.score for item in self._answer(self._build(), QUERIES[0])]
        if any(score is None for score in scores):
            raise NotApplicable("the component returns no scores")
        require(scores == sorted(scores, reverse=True), f"the scores are in the order {scores}")

    def test_results_are_json(self) -> None:
        """Scores and metadata of the results can be written as JSON.

        Servers answer in JSON, and traces are stored in it.
        """
        answer = self._answer(self._build(), QUERIES[0])
        try:
            json.dumps([[item.id, item.text, dict(item.metadata), item.score] for item in answer])
        except TypeError as error:
            raise ConformanceError(f"a result cannot be written as JSON: {error}") from error

    def test_pickle(self) -> None:
        """The component can be pickled, and answers equally afterwards.

        Worker processes of joblib, Ray, Spark and multiprocessing get their components so.
        """
        self._require_equal_copy(lambda component: pickle.loads(pickle.dumps(component)), "pickled")

    def test_deep_copy(self) -> None:
        """The component can be copied deeply, and answers equally afterwards.

        Both frameworks' components are pydantic models, which are copied with changed options.
        """
        self._require_equal_copy(copy.deepcopy, "copied deeply")

    def test_serialisation(self) -> None:
        """The component is written as JSON without weights, and answers equally when read again.

        ``dumpd`` and ``load`` of LangChain, ``to_dict`` and ``from_dict`` of LlamaIndex: how chains are stored and
        reviewed. LlamaIndex defines none for retrievers.
        """
        component, driver = self._build(), self.driver()
        expected = self._answer(component, QUERIES[0])
        try:
            text = driver.written(component)
            back = driver.read(text, component)
        except (NotApplicable, ConformanceError):
            raise
        except Exception as error:
            raise ConformanceError(f"writing and reading raised {shown(error)}") from error
        require(len(text) <= _MAX_WRITTEN_CHARACTERS, f"the JSON has {len(text)} characters; it holds data or weights")
        require(type(back) is type(component), f"a {type(back).__name__} was read; expected {type(component).__name__}")
        require(close(self._answer(back, QUERIES[0]), expected), "the component that was read answers differently")

    def test_unknown_argument_is_refused(self) -> None:
        """The constructor refuses an argument that it does not know.

        A misspelt ``top_n`` that is ignored changes results and is never noticed.
        """
        try:
            self._build(argument_that_no_component_has=1)
        except (TypeError, ValueError):
            return
        raise ConformanceError("the constructor accepted argument_that_no_component_has=1 and ignored it")

    def test_events_on_success(self) -> None:
        """A call is reported to the framework's handlers: a start, and one end with the results.

        Traces show what a component returned. LangChain passes ``callbacks`` to every call; LlamaIndex's components
        have a ``callback_manager``.
        """
        component, driver = self._build(), self.driver()
        for call in (self._call, self._call_async):
            with driver.recording(component) as recording:
                expected = [item.id for item in self._items(call(component, QUERIES[0], recording))]
            runs = list(recording.runs.values())
            require(runs, "no event was reported")
            _require_balanced(runs)
            require(not any(run.failed for run in runs), "an event ended with an error although the call succeeded")
            require(any(run.ids == expected for run in runs), "no event ended with the results of the call")

    def test_events_on_error(self) -> None:
        """A call that fails ends every event that it started, and one of them with the error.

        A trace with an open event never closes, and shows nothing of the failure.
        """

        def fail() -> None:
            raise PlannedError("raised by the conformance suite")

        component, driver = self._hooked(fail), self.driver()
        for call in (self._call, self._call_async):
            with driver.recording(component) as recording:
                try:
                    call(component, QUERIES[0], recording)
                except Exception:
                    pass
                else:
                    raise NotApplicable("the component answers in spite of an error in its model")
            runs = list(recording.runs.values())
            if not runs:
                raise NotApplicable("no event is reported; test_events_on_success says so")
            _require_balanced(runs)
            require(any(run.failed for run in runs), "no event ended with the error")

    def _require_equal_copy(self, duplicate: Callable[[Component], Component], done: str) -> None:
        component = self._build()
        expected = self._answer(component, QUERIES[0])
        try:
            back = duplicate(component)
        except Exception as error:
            raise ConformanceError(f"the component cannot be {done}: {shown(error)}") from error
        require(
            close(self._answer(back, QUERIES[0]), expected), f"the component answers differently after it was {done}"
        )

    def _require_finite(self, answer: list[Item], after: str) -> None:
        scores = [item.score for item in answer if item.score is not None]
        require(all(math.isfinite(score) for score in scores), f"{after} gave the scores {scores}")


def _require_balanced(runs: list[Any]) -> None:
    for run in runs:
        require(run.ends == 1, f"the event {run.name} ended {run.ends} times; expected once")


def _is_clear(error: Exception, *words: str) -> bool:
    return isinstance(error, ValueError | TypeError) and any(word in str(error).lower() for word in words)


def shown(error: BaseException) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Parameters
    ----------
    name
        The method's name without ``test_``.
    outcome
        ``"passed"``, ``"failed"`` or ``"skipped"``.
    message
        Why it failed or was skipped.
    """

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    message: str = ""


def run_checks(suite: Conformance, only: Iterable[str] | None = None) -> list[CheckResult]:
    """Run the checks of a suite without pytest.

    Parameters
    ----------
    only
        Names of checks, without ``test_``; ``None`` runs all.

    Returns
    -------
    list of CheckResult
        One per check, in the order of their definition; an error of the component counts as a failure.

    Raises
    ------
    InvalidInputError
        If a name in `only` is not that of a check.
    """
    names = check_names(type(suite))
    chosen = names if only is None else list(only)
    if unknown := [name for name in chosen if name not in names]:
        raise InvalidInputError(f"no check is named {unknown[0]!r}; expected some of {', '.join(names)}")
    return [_run(suite, name) for name in chosen]


def check_names(suite: type[Conformance]) -> list[str]:
    """Return the names of a suite's checks, without ``test_``, those of its bases first."""
    names: dict[str, None] = {}
    for base in reversed(suite.__mro__):
        names.update(dict.fromkeys(name.removeprefix("test_") for name in vars(base) if name.startswith("test_")))
    return list(names)


def _run(suite: Conformance, name: str) -> CheckResult:
    try:
        getattr(suite, f"test_{name}")()
    except unittest.SkipTest as reason:
        return CheckResult(name, "skipped", str(reason))
    except ConformanceError as error:
        return CheckResult(name, "failed", str(error))
    except Exception as error:
        return CheckResult(name, "failed", f"raised {shown(error)}")
    return CheckResult(name, "passed")


def require_count_of_zero(build_and_answer: Callable[[], list[Item]], argument: str) -> None:
    """Require that a count of 0 gives nothing or is refused.

    Raises
    ------
    ConformanceError
        If it gives results, or an error that is no ValueError or TypeError.
    """
    try:
        answer = build_and_answer()
    except (TypeError, ValueError):
        return
    except Exception as error:
        raise ConformanceError(f"{argument}=0 raised {shown(error)}") from error
    require(answer == [], f"{argument}=0 gave {len(answer)} results")


def sources(items: list[Item]) -> Iterator[object]:
    """Yield the mark by which the checks recognise each sample document, whether its id was kept or not."""
    return (item.metadata.get("source") for item in items)
