"""The judge: verdicts on programs, from tests that the programs' processes never see.

A checker process holds the tests, and each candidate runs in a contained process of its own; they talk through a closed set of
plain values. Files are sorted by process: this folder is the user's, `checker/` holds the tests and decides, `candidate/` runs
and contains the program and never sees a test, `wire/` is what crosses between them.

What is covered, each line with an adversarial test:

- expected values and test code are not in the candidate's process: frames, bytecode and memory show none;
- a pass is decided by the checker after the last assertion: no exit status, output, mark or message makes one;
- results are compared as plain builtin values: `__eq__`, `__hash__`, `__str__` and patched builtins or modules decide nothing;
- arguments that a function changed reach the test when the statement that called it has ended, so it cannot rewrite what it is
  compared with;
- between two objects of the program, an equality that holds for anything is none; truth and length must be steady;
- time: a deadline on the wall clock, kept by another process, and a limit of processor time;
- memory: the address space is limited without threads, and what is in use watched with them; results are bounded too;
- processes: none but its own threads (their number limited), and all that it started dies with it;
- network: none, loopback, UDP and abstract sockets included;
- files: read-only Python and system files, a scratch folder with a quota that is emptied; the user's files are not there;
- secrets: an empty environment, no other process's memory, no solutions of installed benchmarks;
- signals, tracing, kernel interfaces: refused;
- output: bounded, wherever it goes.

How much of the second half holds depends on what the system has: see
[`isolation`][trl_rrtf.Judge.isolation]. Not covered: errors of the kernel itself; a program that tells by timing which test it
serves; a program that recognises the inputs of a published benchmark and knows the answers by heart; test and setup code, which
is trusted and runs with the rights of the user.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

from trl_rrtf.errors import ConfigError, JudgeError
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.isolation import Isolation, probe_isolation
from trl_rrtf.judging.observation import INPUT_KINDS, Observation
from trl_rrtf.judging.preparation import PreparedProblem, check_inputs, prepare, prepare_observation
from trl_rrtf.judging.wire.protocol import Judged
from trl_rrtf.judging.worker import (
    CandidateKilledError,
    CannotJudgeError,
    ComparisonHungError,
    Worker,
    WorkerDiedError,
    WorkerHungError,
)
from trl_rrtf.options import check_choice
from trl_rrtf.rows.checks import shown
from trl_rrtf.rows.records import Outcome, Problem, Verdict

_LAYERS_LEFT_OUT: tuple[str, ...] = ()
"""Layers of the containment to do without; set by tests of what the others do."""

_READ_AHEAD = 16
"""Programs per worker that are taken from a stream before the first verdict is given back."""


class Finding(NamedTuple):
    """A verdict, and where the program went wrong first.

    Attributes:
        verdict: What happened.
        test: Index of the test among those of functions (`assert`, `check`, `call`), with those of whole programs (`stdio`)
            behind them, or None where none is known.
        line: Line of the test's code, or 0 where none is known.
        raised: What was raised there, or the limit that was broken; empty where an assertion did not hold.
        sides: The values that the failing assertion compared, as text, or the result of a call, or the output of a whole
            program; None for one that is not known. None are there where nothing but verdicts is asked for.
        names: The variables that the failing assertion used, as text.
    """

    verdict: Verdict
    test: int | None = None
    line: int = 0
    raised: str = ""
    sides: tuple[str | None, ...] = ()
    names: Mapping[str, str] = {}


@dataclass(eq=False)
class _Task:
    """A program to judge; the future brings its `Finding`."""

    problem: PreparedProblem
    program: str
    future: Future[Any] = field(default_factory=Future)

    def ask(self, worker: Worker) -> Any:
        """One run of the program."""
        return _as_finding(worker.judge(self.problem, self.program))

    def broke_a_limit(self, reason: str) -> Any:
        """The result where the program broke the judge's machinery every time."""
        return Finding(Verdict(outcome=Outcome.RUNTIME_ERROR, total=self.problem.total, detail=reason))

    def failed(self, reason: str) -> Any:
        """The result where the judge failed."""
        return Finding(Verdict(outcome=Outcome.INFRASTRUCTURE, detail=reason))

    def of_two(self, first: Any, second: Any) -> Any:
        """The result of two runs: the lower verdict if they differ."""
        one, other = first.verdict, second.verdict
        if other.outcome is Outcome.INFRASTRUCTURE or (other.outcome, other.passed) == (one.outcome, one.passed):
            return first
        lower, higher = sorted((first, second), key=lambda found: (found.verdict.outcome, found.verdict.passed))
        lower.verdict.detail = f"flaky ({higher.verdict.outcome.label} in another run): {lower.verdict.detail}"
        return lower

    def is_failure(self, result: Any) -> bool:
        """Whether a result is one of `failed`."""
        return bool(result.verdict.outcome is Outcome.INFRASTRUCTURE)


class _Observing(_Task):
    """A program to observe; the future brings a list of observations."""

    def ask(self, worker: Worker) -> list[Observation]:
        observed = worker.observe(self.problem, self.program)
        values = [None if value is None else _writable(value) for value in observed.values]
        return [Observation(value, _writable(error)) for value, error in zip(values, observed.errors, strict=True)]

    def broke_a_limit(self, reason: str) -> list[Observation]:
        return [Observation(None, reason)] * self.problem.runs

    def failed(self, reason: str) -> list[Observation]:
        return [Observation(None, reason, is_infrastructure=True)] * self.problem.runs

    def of_two(self, first: list[Observation], second: list[Observation]) -> list[Observation]:
        """What two runs agree on."""
        if self.is_failure(second):
            return first
        flaky = Observation(None, "flaky: another run gave something else")
        return [one if one == other else flaky for one, other in zip(first, second, strict=True)]

    def is_failure(self, result: list[Observation]) -> bool:
        return any(one.is_infrastructure for one in result)


class Judge:
    r"""Judges programs against the tests of their problems. Safe to use from several threads.

    ```python
    with Judge(JudgeConfig(timeout=3)) as judge:
        verdict = judge.judge(problem, "def add(a, b):\n    return a + b\n")
    ```

    Args:
        config: Limits; by default `JudgeConfig()`.

    Raises:
        JudgeError: The system is not Linux, or lacks what `required_isolation` names.
    """

    def __init__(self, config: JudgeConfig | None = None) -> None:
        if sys.platform != "linux":
            raise JudgeError(f"the judge needs Linux, got {sys.platform}; run it in a container or on another machine")
        self.config = config or JudgeConfig()
        self._isolation: Isolation | None = None
        if self.config.required_isolation:
            self.isolation().require(self.config.required_isolation)
        self.num_workers = self.config.num_workers or _usable_cores()
        self._workers = [Worker(self.config, _LAYERS_LEFT_OUT) for _ in range(self.num_workers)]
        self._tasks: deque[_Task] = deque()
        self._serving: dict[Worker, PreparedProblem] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name=f"judge-{number}", daemon=True)
            for number, worker in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def judge(self, problem: Problem, program: str) -> Verdict:
        """Runs one program against the tests of its problem.

        Args:
            problem: A problem with at least one test.
            program: A self-contained program.

        Returns:
            What happened. `INFRASTRUCTURE` when the judge failed, also after its retries.

        Raises:
            ConfigError: The problem has no test, or its tests cannot be run (not Python, no `entry_point`).
        """
        [verdict] = self.judge_many([(problem, program)])
        return verdict

    def judge_many(self, items: Iterable[tuple[Problem, str]]) -> Iterator[Verdict]:
        """Judges a stream of programs side by side.

        Programs of one problem that follow each other are judged fastest: they share a checker.

        Args:
            items: (problem, program) pairs. At most 16 per worker are read ahead of what was yielded, so it may be endless.

        Yields:
            One verdict per item, in order.

        Raises:
            ConfigError: As in [`judge`][trl_rrtf.Judge.judge].
        """
        return (finding.verdict for finding in self._in_order(self._judging(items)))

    def find_many(self, items: Iterable[tuple[Problem, str]]) -> Iterator[Finding]:
        """As `judge_many`, and says where each program went wrong first, and what the test saw there."""
        return self._in_order(self._judging(items, tells=True))

    def observe(self, problem: Problem, program: str, inputs: Sequence[str], kind: str = "expression") -> list[Observation]:
        """Runs one program on inputs, without any test, contained as for tests.

        Args:
            problem: Its `entry_point` and `setup_code` count, its tests do not.
            program: A self-contained program.
            inputs: Python expressions such as `"add(1, 2)"`. They are evaluated where test code is, by the checker and with
                the rights of the user: give trusted text alone, never what a model wrote. All of them are for one process of
                the program (what one changes, the next one sees), each with the whole time limit; or texts of standard input,
                each for a run of the whole program. Of those that come to a limit of time or memory, three are tried.
            kind: `"expression"` or `"stdin"`.

        Returns:
            What each gave, in order.

        Raises:
            ConfigError: An expression does not parse, `kind` is unknown, or an argument is of a wrong type.
        """
        [observations] = self.observe_many([(problem, program, inputs)], kind)
        return observations

    def observe_many(
        self, items: Iterable[tuple[Problem, str, Sequence[str]]], kind: str = "expression"
    ) -> Iterator[list[Observation]]:
        """Observes a stream of programs side by side; programs with the same problem and inputs share a checker.

        Args:
            items: (problem, program, inputs) triples, read ahead as in [`judge_many`][trl_rrtf.Judge.judge_many].
            kind: As in [`observe`][trl_rrtf.Judge.observe].

        Yields:
            The observations of each item, in order.

        Raises:
            ConfigError: As in [`observe`][trl_rrtf.Judge.observe].
        """
        check_choice("kind", kind, INPUT_KINDS)
        return self._in_order(self._observing(items, kind))

    def _judging(self, items: Iterable[tuple[Problem, str]], *, tells: bool = False) -> Iterator[_Task]:
        last: tuple[Problem, PreparedProblem] | None = None
        for problem, program in items:
            if last is None or last[0] is not problem:
                last = problem, prepare(problem, tells=tells)
            _check_program(program)
            yield _Task(last[1], program)

    def _observing(self, items: Iterable[tuple[Problem, str, Sequence[str]]], kind: str) -> Iterator[_Task]:
        last: tuple[Problem, list[str], PreparedProblem] | None = None
        for problem, program, inputs in items:
            _check_program(program)
            check_inputs(problem, inputs)
            if last is None or last[0] is not problem or last[1] != list(inputs):
                last = problem, list(inputs), prepare_observation(problem, inputs, kind)
            yield _Observing(last[2], program)

    def _in_order(self, tasks: Iterable[_Task]) -> Iterator[Any]:
        pending: deque[_Task] = deque()
        try:
            for task in tasks:
                pending.append(self._submit(task))
                while pending and (pending[0].future.done() or len(pending) >= _READ_AHEAD * self.num_workers):
                    yield pending.popleft().future.result()
            while pending:
                yield pending.popleft().future.result()
        finally:
            with self._changed:
                for task in pending:
                    if task in self._tasks:
                        self._tasks.remove(task)

    def isolation(self) -> Isolation:
        """What keeps candidates from doing harm on this system, found out by trying.

        Raises:
            JudgeError: No worker starts.
        """
        if self._isolation is None:
            self._isolation = probe_isolation(self.config, _LAYERS_LEFT_OUT)
        return self._isolation

    def close(self) -> None:
        """Kills what runs and waits for the workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- Sharing the work ------------------------------------------------------------------------------------------------

    def _submit(self, task: _Task) -> _Task:
        with self._changed:
            if self._closed:
                task.future.set_result(task.failed("the judge is closed; make a new one"))
            else:
                self._tasks.append(task)
                self._changed.notify()
        return task

    def _work(self, worker: Worker) -> None:
        while (task := self._next_task(worker)) is not None:
            try:
                task.future.set_result(self._result(worker, task))
            except BaseException as error:  # a defect of this package; whoever waits must not wait for ever
                task.future.set_exception(error)
        worker.stop()

    def _next_task(self, worker: Worker) -> _Task | None:
        """The next program for a worker: of its own problem, else of one that no other worker serves, else the first."""
        with self._changed:
            while not self._tasks and not self._closed:
                self._changed.wait()
            if self._closed:
                for task in self._tasks:
                    task.future.set_result(task.failed("the judge was closed"))
                self._tasks.clear()
                return None
            own = self._serving.get(worker)
            others = [problem for other, problem in self._serving.items() if other is not worker]
            chosen = next((task for task in self._tasks if task.problem is own), None)
            chosen = chosen or next((task for task in self._tasks if task.problem not in others), self._tasks[0])
            self._tasks.remove(chosen)
            self._serving[worker] = chosen.problem
            return chosen

    # --- One program -----------------------------------------------------------------------------------------------------

    def _result(self, worker: Worker, task: _Task) -> Any:
        first = self._one_result(worker, task)
        if not self.config.second_run or task.is_failure(first):
            return first
        return task.of_two(first, self._one_result(worker, task))

    def _one_result(self, worker: Worker, task: _Task) -> Any:
        """A result, with retries of what failed in the judge."""
        failures: list[WorkerDiedError] = []
        while len(failures) <= self.config.retries and not self._closed:
            try:
                return task.ask(worker)
            except CannotJudgeError as error:
                return task.failed(str(error))
            except WorkerDiedError as error:
                failures.append(error)
                if isinstance(error, ComparisonHungError) or [type(one) for one in failures].count(WorkerHungError) == 2:
                    break
        # What happens every time is the candidate's doing, even if the judge cannot prove it.
        detail = ""
        if all(isinstance(failure, CandidateKilledError) for failure in failures):
            detail = str(failures[-1]) if failures else ""
        elif isinstance(failures[-1], WorkerHungError):
            detail = f"time limit of {self.config.timeout:g} s, in the comparison of its results"
        if detail:
            return task.broke_a_limit(detail)
        return task.failed(str(failures[-1]) if failures else "the judge was closed")


def _as_finding(judged: Judged) -> Finding:
    verdict = Verdict(
        outcome=Outcome(judged.outcome),
        passed=judged.passed,
        total=judged.total,
        seconds=judged.seconds,
        detail=_writable(judged.detail),
    )
    test = None if judged.failed_test < 0 else judged.failed_test
    sides = tuple(None if side is None else _writable(side) for side in judged.failed_sides or ())
    names = {name: _writable(text) for name, text in (judged.failed_names or {}).items()}
    return Finding(verdict, test, judged.failed_line, _writable(judged.failed_by), sides, names)


def _check_program(program: str) -> None:
    if not isinstance(program, str):
        raise ConfigError(f"`program`: expected the text of a Python program, got {shown(program)}")


def _writable(text: str) -> str:
    """What a program raised or gave may hold text that no file takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
