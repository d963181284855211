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
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from trl_rrtf.errors import JudgeError
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.isolation import Isolation, probe_isolation
from trl_rrtf.judging.preparation import PreparedProblem, prepare
from trl_rrtf.judging.wire.protocol import Judged
from trl_rrtf.judging.worker import (
    CandidateKilledError,
    CannotJudgeError,
    ComparisonHungError,
    Worker,
    WorkerDiedError,
    WorkerHungError,
)
from trl_rrtf.rows.records import Outcome, Problem, Verdict

_LAYERS_LEFT_OUT: tuple[str, ...] = ()
"""Layers of the containment to do without; set by tests of what the others do."""

_READ_AHEAD = 16
"""Programs per worker that are taken from a stream before the first verdict is given back."""


@dataclass(eq=False)
class _Task:
    problem: PreparedProblem
    program: str
    future: Future[Verdict] = field(default_factory=Future)


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
        return self._submit(prepare(problem), program).future.result()

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
        pending: deque[_Task] = deque()
        last: tuple[Problem, PreparedProblem] | None = None
        try:
            for problem, program in items:
                if last is None or last[0] is not problem:
                    last = problem, prepare(problem)
                pending.append(self._submit(last[1], program))
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

    def _submit(self, problem: PreparedProblem, program: str) -> _Task:
        task = _Task(problem, program)
        with self._changed:
            if self._closed:
                task.future.set_result(_failure("the judge is closed; make a new one"))
            else:
                self._tasks.append(task)
                self._changed.notify()
        return task

    def _work(self, worker: Worker) -> None:
        while (task := self._next_task(worker)) is not None:
            try:
                task.future.set_result(self._verdict(worker, task))
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
                    task.future.set_result(_failure("the judge was closed"))
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

    def _verdict(self, worker: Worker, task: _Task) -> Verdict:
        verdict = self._judged(worker, task)
        if not self.config.second_run or verdict.outcome is Outcome.INFRASTRUCTURE:
            return verdict
        second = self._judged(worker, task)
        if second.outcome is Outcome.INFRASTRUCTURE or (second.outcome, second.passed) == (verdict.outcome, verdict.passed):
            return verdict
        lower, higher = sorted((verdict, second), key=lambda one: (one.outcome, one.passed))
        lower.detail = f"flaky ({higher.outcome.label} in another run): {lower.detail}"
        return lower

    def _judged(self, worker: Worker, task: _Task) -> Verdict:
        """A verdict, with retries of what failed in the judge."""
        failures: list[WorkerDiedError] = []
        while len(failures) <= self.config.retries and not self._closed:
            try:
                return _as_verdict(worker.judge(task.problem, task.program))
            except CannotJudgeError as error:
                return _failure(str(error))
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
            return Verdict(outcome=Outcome.RUNTIME_ERROR, total=task.problem.total, detail=detail)
        return _failure(str(failures[-1]) if failures else "the judge was closed")


def _as_verdict(judged: Judged) -> Verdict:
    # What a program raised may hold text that no file takes.
    detail = judged.detail.encode("utf-8", "backslashreplace").decode("utf-8")
    return Verdict(
        outcome=Outcome(judged.outcome), passed=judged.passed, total=judged.total, seconds=judged.seconds, detail=detail
    )


def _failure(reason: str) -> Verdict:
    return Verdict(outcome=Outcome.INFRASTRUCTURE, detail=reason)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
