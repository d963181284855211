"""The judge: one contained process per program, one verdict per candidate.

What is covered, each line with an adversarial test:

- time: a wall-clock deadline; the whole process group is killed, also when the program ends before its descendants;
- memory: an address-space limit;
- disk: a scratch folder that is removed, a largest file size;
- secrets: an empty environment; the working folder and HOME are the scratch folder;
- early exits: `sys.exit`, `os._exit` and friends are no pass, since a pass needs a result of every test;
- success marks on standard output: results travel on a pipe of their own, with a random token;
- output: standard output and error are files of bounded size.

What is not covered, because candidate and tests share one process: a program that reads the expected values or the token from
the frames and memory of its process, an object whose `__eq__` is always true, a descendant that leaves the process group,
network access, and files that the user may read or write. Judge programs of models that you do not suspect of attacks, or
work inside a container.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import Outcome, Problem, UnitTest, Verdict
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.python_source import parse_program

_CHILD = Path(__file__).with_name("child.py")
_POLL_SECONDS = 0.05
_RESULT_BYTES = 16 * 2**20


@dataclass
class _Events:
    """What a child process reported, and how it ended."""

    entries: list[dict[str, str]]
    timed_out: bool
    return_code: int
    seconds: float

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.entries]

    def detail(self, *kinds: str) -> str:
        return next((entry["detail"] for entry in self.entries if entry["kind"] in kinds), "")


class Judge:
    r"""Judges programs against the tests of their problems.

    ```python
    with Judge(JudgeConfig(timeout=3)) as judge:
        verdict = judge.judge(problem, "def add(a, b):\n    return a + b\n")
    ```

    Args:
        config: Limits; by default `JudgeConfig()`.
    """

    def __init__(self, config: JudgeConfig | None = None) -> None:
        self.config = config or JudgeConfig()
        self.num_workers = self.config.num_workers or _usable_cores()
        self._pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="judge")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

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
        return self._judge(problem, program, _count_tests(problem))

    def _judge(self, problem: Problem, program: str, total: int) -> Verdict:
        for _ in range(self.config.retries + 1):
            try:
                return self._judge_once(problem, program, total)
            except (OSError, _MalformedResultError) as error:
                reason = f"{type(error).__name__}: {error}"
        return Verdict(outcome=Outcome.INFRASTRUCTURE, detail=reason)

    def judge_many(self, items: Iterable[tuple[Problem, str]]) -> Iterator[Verdict]:
        """Judges a stream of programs side by side.

        Args:
            items: (problem, program) pairs; read only a few ahead of what was yielded, so a stream may be endless.

        Yields:
            One verdict per item, in order.

        Raises:
            ConfigError: As in [`judge`][trl_rrtf.Judge.judge].
        """
        pending: deque[Future[Verdict]] = deque()
        try:
            for problem, program in items:
                pending.append(self._pool.submit(self._judge, problem, program, _count_tests(problem)))
                if len(pending) >= 2 * self.num_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """Kills what runs and waits for the workers."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _kill(process)
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _judge_once(self, problem: Problem, program: str, total: int) -> Verdict:
        functions = [test for test in problem.tests if test.kind != "stdio"]
        programs = [test for test in problem.tests if test.kind == "stdio"]
        verdicts = [self._judge_functions(problem, program, functions, total - len(programs))] if functions else []
        verdicts += [self._judge_stdio(problem, program, test) for test in programs]
        return _merge(verdicts)

    def _judge_functions(self, problem: Problem, program: str, tests: list[UnitTest], written: int) -> Verdict:
        job = {"kind": "function", "tests": [test.to_row() for test in tests], "entry_point": problem.entry_point, "stdin": ""}
        events, _ = self._run(problem, program, job)
        results = [kind for kind in events.kinds() if kind in ("pass", "wrong", "raise")]
        passed = results.count("pass")
        # Assertions in loops are known only when they ran; those that were not reached count as written.
        total = max(len(results), written)
        outside = events.detail("raise_outside", "import_error")
        complete = "end" in events.kinds() and not outside
        if complete and results.count("pass") == len(results) and not self.config.stop_at_first_failure:
            total = len(results)  # a check function may skip assertions on purpose
        if complete and passed == total > 0:
            return Verdict(outcome=Outcome.PASSED, passed=passed, total=total, seconds=events.seconds)
        raised = events.detail("raise", "raise_outside", "import_error") or _ending(events, self.config)
        detail = raised or events.detail("wrong") or "a test had no result"
        outcome = Outcome.PARTIAL if passed else Outcome.RUNTIME_ERROR if raised else Outcome.FAILED
        if "compile_error" in events.kinds():
            outcome, detail = Outcome.COMPILE_ERROR, events.detail("compile_error")
        return Verdict(outcome=outcome, passed=passed, total=total, seconds=events.seconds, detail=detail)

    def _judge_stdio(self, problem: Problem, program: str, test: UnitTest) -> Verdict:
        job: dict[str, Any] = {"kind": "stdio", "tests": [], "entry_point": None, "stdin": test.stdin}
        events, output = self._run(problem, program, job)
        verdict = Verdict(outcome=Outcome.FAILED, passed=0, total=1, seconds=events.seconds)
        if "compile_error" in events.kinds():
            verdict.outcome, verdict.detail = Outcome.COMPILE_ERROR, events.detail("compile_error")
        elif "ran" not in events.kinds():
            verdict.outcome = Outcome.RUNTIME_ERROR
            verdict.detail = events.detail("raise") or _ending(events, self.config) or "the program ended early"
        elif _lines(output) == _lines(test.stdout or ""):
            verdict.outcome, verdict.passed = Outcome.PASSED, 1
        else:
            verdict.detail = "AssertionError: another output"
        return verdict

    def _run(self, problem: Problem, program: str, job: dict[str, Any]) -> tuple[_Events, str]:
        """Runs one child process; returns its events and its standard output."""
        token = secrets.token_hex(16)
        job = {
            **job,
            "token": token,
            "program": program,
            "setup_code": problem.setup_code,
            "timeout": self.config.timeout,
            "memory_bytes": self.config.memory_mb * 2**20,
            "max_output_bytes": self.config.max_output_bytes,
            "stop_at_first_failure": self.config.stop_at_first_failure,
        }
        with tempfile.TemporaryDirectory(prefix="judge-", ignore_cleanup_errors=True) as scratch:
            work = Path(scratch) / "work"
            work.mkdir()
            output = Path(scratch) / "stdout"
            with open(output, "wb") as stdout:
                lines, timed_out, return_code, seconds = self._supervise(json.dumps(job).encode("ascii"), work, stdout)
            text = output.read_bytes()[: self.config.max_output_bytes].decode("utf-8", "replace")
        events = _Events(_parse(lines, token), timed_out, return_code, seconds)
        if "ready" not in events.kinds():
            raise _MalformedResultError(f"the child process did not start (exit status {return_code})")
        return events, text

    def _supervise(self, job: bytes, work: Path, stdout: Any) -> tuple[bytes, bool, int, float]:
        """Starts a child, gives it its job, reads its results until it ends or its time is over, and kills what is left."""
        read_end, write_end = os.pipe()
        results = bytearray()
        try:
            try:
                process = self._start(write_end, work, stdout)
            finally:
                os.close(write_end)
            started = time.monotonic()
            try:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(job)
                    process.stdin.close()
                timed_out = not self._read_until_end(process, read_end, started + self.config.timeout, results)
            finally:
                seconds = time.monotonic() - started
                _kill(process)
                process.wait()
                with self._lock:
                    self._running.discard(process)
            return bytes(results), timed_out, process.returncode, round(seconds, 4)
        finally:
            os.close(read_end)

    def _read_until_end(self, process: subprocess.Popen[bytes], read_end: int, deadline: float, results: bytearray) -> bool:
        """Collects results; returns whether the process ended before the deadline."""
        while (left := deadline - time.monotonic()) > 0:
            # A descendant may hold the pipe open after the process has ended, so its end is looked for as well.
            readable, _, _ = select.select([read_end], [], [], min(left, _POLL_SECONDS))
            if readable:
                chunk = os.read(read_end, 65536)
                if not chunk:
                    return self._ends_before(process, deadline)
                if len(results) < _RESULT_BYTES:  # a program may flood the pipe; what is read is bounded
                    results += chunk
            elif process.poll() is not None:
                return True
        return False

    @staticmethod
    def _ends_before(process: subprocess.Popen[bytes], deadline: float) -> bool:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _start(self, write_end: int, work: Path, stdout: Any) -> subprocess.Popen[bytes]:
        environment = {
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "HOME": str(work),
            "TMPDIR": str(work),
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
        }
        with self._lock:
            if self._closed:
                raise ConfigError("the judge is closed; make a new one")
            process = subprocess.Popen(
                # Not -I, which would ignore PYTHONHASHSEED: with a fixed seed a program behaves the same each time.
                [sys.executable, "-s", "-P", str(_CHILD), str(write_end)],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=subprocess.DEVNULL,
                pass_fds=(write_end,),
                cwd=work,
                env=environment,
                start_new_session=True,
            )
            self._running.add(process)
        return process


class _MalformedResultError(Exception):
    """The child process did not report as it should."""


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the whole process group, also what the program left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _parse(lines: bytes, token: str) -> list[dict[str, str]]:
    """The events that carry the job's token; whatever else a program wrote there is no event."""
    events = []
    for line in lines.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("token") == token:
            events.append({"kind": str(entry.get("kind")), "detail": str(entry.get("detail", ""))})
    return events


def _ending(events: _Events, config: JudgeConfig) -> str:
    """Which limit or signal ended a child before it was done, or nothing."""
    if events.timed_out:
        return f"time limit of {config.timeout:g} s"
    if events.return_code == -signal.SIGXCPU:
        return "CPU time limit"
    if events.return_code == -signal.SIGXFSZ:
        return f"output limit of {config.max_output_bytes} bytes"
    if events.return_code < 0:
        return f"killed by signal {-events.return_code}"
    if "end" not in events.kinds() and "compile_error" not in events.kinds():
        return f"the program ended early (exit status {events.return_code})"
    return ""


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _count_tests(problem: Problem) -> int:
    """Number of tests as written; tests that cannot be run are an error of the problem, never a verdict on a candidate."""
    name = problem.problem_id
    if not problem.tests:
        raise ConfigError(f"`tests` of problem {name!r}: the list is empty; a program without tests cannot be judged")
    total = 0
    for test in problem.tests:
        if test.kind in ("call", "check") and not problem.entry_point:
            raise ConfigError(f"`entry_point` of problem {name!r}: a test of kind `{test.kind}` needs the function's name")
        try:
            total += _count_assertions(test)
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f"`tests` of problem {name!r}: a test of kind `{test.kind}` cannot be read: {error}") from error
    return total


def _count_assertions(test: UnitTest) -> int:
    """1, or the assertions that stand in a check function."""
    if test.kind == "call":
        json.loads(test.input or ""), json.loads(test.output or "")
    if test.kind not in ("assert", "check"):
        return 1
    tree = parse_program(test.code or "")
    return 1 if test.kind == "assert" else max(1, sum(isinstance(node, ast.Assert) for node in ast.walk(tree)))


def _merge(verdicts: list[Verdict]) -> Verdict:
    """One verdict from those of several processes."""
    passed, total = sum(verdict.passed for verdict in verdicts), sum(verdict.total for verdict in verdicts)
    worst = min(verdicts, key=lambda verdict: verdict.outcome)
    outcome = worst.outcome
    if outcome is not Outcome.COMPILE_ERROR and 0 < passed < total:
        outcome = Outcome.PARTIAL
    seconds = round(sum(verdict.seconds for verdict in verdicts), 4)
    return Verdict(outcome=outcome, passed=passed, total=total, seconds=seconds, detail=worst.detail)
