"""The tests of one problem, run against each candidate in a namespace of its own."""

from __future__ import annotations

import contextlib
import importlib
import json
import marshal
import os
import socket
import sys
import time
import types
from typing import Any, NamedTuple

from trl_rrtf.judging.checker.canonical import NotShownError, bounded, canonical
from trl_rrtf.judging.checker.code_of_tests import TEST_MODULE
from trl_rrtf.judging.checker.comparison import plain_output, same_output, same_result
from trl_rrtf.judging.checker.library import library_module, meant_by
from trl_rrtf.judging.checker.recorder import LONGEST_DETAIL, Failed, JudgeFailedError, Recorder, StopTestingError, describe
from trl_rrtf.judging.checker.remote import CandidateGoneError, Session
from trl_rrtf.judging.checker.runner import Runner
from trl_rrtf.judging.checker.seen import NOTHING_SEEN, Seen
from trl_rrtf.judging.wire.channel import Channel, ChannelClosedError
from trl_rrtf.judging.wire.process import fix_seeds
from trl_rrtf.judging.wire.protocol import (
    RECORDER,
    CompileFailed,
    FunctionTest,
    Judged,
    Loaded,
    LoadFunctions,
    Observed,
    Operation,
    ProblemTests,
    ProgramRaised,
    ProgramRan,
    ProgramTest,
    RunProgram,
)

_MOST_AT_A_LIMIT = 3
"""Observations that may cost the whole limit of time or memory; those after them are not made."""

COMPILE_ERROR, RUNTIME_ERROR, FAILED, PARTIAL, PASSED = range(5)
"""Outcomes, as in [`Outcome`][trl_rrtf.Outcome], whose module would make every fork slower."""


class _Run(NamedTuple):
    """What one process of a candidate came to."""

    outcome: int
    passed: int = 0
    total: int = 1
    detail: str = ""
    without_time: int = 0
    """Calls that follow those that took the time of this process; each call has the whole limit, so they get another."""
    failed: Failed | None = None
    output: str | None = None
    """The output of a whole program that is another one, if it is asked for."""


class _Numbered(NamedTuple):
    """A test of functions with its number among all tests."""

    number: int
    test: FunctionTest


class _Seen(NamedTuple):
    """What one observation gave."""

    value: str | None
    error: str = ""


class Problem:
    """A problem's tests, compiled once.

    Args:
        tests: The tests.
        settings: What the judge has set.

    Raises:
        BaseException: The problem's own code fails.
    """

    def __init__(self, tests: ProblemTests, settings: dict[str, Any]) -> None:
        self._tests = tests
        self._settings = settings
        functions = [_Numbered(number, FunctionTest(*fields)) for number, fields in enumerate(tests.functions)]
        self._call_tests = [one for one in functions if one.test.kind == "call"]
        self._code_tests = [one for one in functions if one.test.kind != "call"]
        self._programs = [ProgramTest(*fields) for fields in tests.programs]
        self._codes = {one.test.code: marshal.loads(one.test.code) for one in self._code_tests}
        self._trusted = [marshal.loads(code) for code in tests.trusted]
        self._expected = set(tests.expected)
        self._under_test: Any = None
        self.out_of_memory = False
        if any(b"numpy" in code for code in (*tests.trusted, *self._codes)):
            library_module("numpy")
        self._namespace()  # fails here and not at the first candidate

    def _namespace(self) -> dict[str, Any]:
        module = types.ModuleType(TEST_MODULE)
        sys.modules[TEST_MODULE] = module
        names = module.__dict__
        names[RECORDER] = _NoRecorder()
        for code in self._trusted:
            exec(code, names)
        return names

    def judge(self, program: str, runner: Runner) -> Judged:
        """Runs one program against all tests.

        Raises:
            JudgeFailedError: The judge failed.
        """
        _start_afresh()
        started = time.monotonic()
        runs: list[_Run] = []
        if self._code_tests:
            runs.append(self._judge_functions(program, runner, self._code_tests))
        calls = self._call_tests
        while calls and not self._is_enough(runs):
            runs.append(self._judge_functions(program, runner, calls))
            calls = calls[len(calls) - runs[-1].without_time :]
        for number, test in enumerate(self._programs, start=len(self._tests.functions)):
            if self._is_enough(runs):
                break
            run = self._judge_program(program, runner, test)
            seen = Seen((run.output,)) if run.outcome == FAILED else NOTHING_SEEN
            failed = Failed(number, raised="" if run.outcome == FAILED else run.detail, seen=seen)
            runs.append(run._replace(failed=failed))
        merged = self._merged(runs)
        seconds = round(time.monotonic() - started, 4)
        counts, failed = (merged.outcome, merged.passed, merged.total), merged.failed or Failed(-1)
        where, (sides, names) = (failed.test, failed.line, failed.raised), failed.seen
        return Judged(*counts, seconds, merged.detail, self.out_of_memory, *where, list(sides), dict(names))

    def _is_enough(self, runs: list[_Run]) -> bool:
        """Whether the verdict is known without the rest."""
        outcome = runs[-1].outcome if runs else PASSED
        return outcome == COMPILE_ERROR or (self._settings["stop_at_first_failure"] and outcome != PASSED)

    def _merged(self, runs: list[_Run]) -> _Run:
        """One verdict from those of several processes."""
        worst = min(runs, key=lambda run: run.outcome)
        passed, total = sum(run.passed for run in runs), sum(run.total for run in runs)
        if worst.outcome != PASSED:
            total = max(total, self._tests.written)
        partial = worst.outcome != COMPILE_ERROR and 0 < passed < total
        failed = next((run.failed for run in runs if run.outcome != PASSED and run.failed), None)
        return _Run(PARTIAL if partial else worst.outcome, passed, total, worst.detail, failed=failed)

    # --- Tests of functions ----------------------------------------------------------------------------------------------

    def _judge_functions(self, program: str, runner: Runner, tests: list[_Numbered]) -> _Run:
        channel = runner.start()
        written = sum(max(1, one.test.assertions) for one in tests)
        try:
            answer, lost = self._load(program, channel)
            if isinstance(answer, CompileFailed):
                return _Run(COMPILE_ERROR, total=written, detail=answer.detail[:LONGEST_DETAIL])
            if isinstance(answer, ProgramRaised):
                return _Run(RUNTIME_ERROR, total=written, detail=self._with_limit(answer.detail[:LONGEST_DETAIL]))
            names = self._namespace()
            session = Session(channel, names)
            stop = self._settings["stop_at_first_failure"]
            recorder = Recorder(session, stop_at_first_failure=stop, tells=self._tests.tells)
            if answer is not None:
                lost = self._run_tests(tests, answer, names, session, recorder)
            ending = runner.why_lost(lost)[0] if lost is not None else ""
        finally:
            channel.close()
            runner.stop_if_running()
        self.out_of_memory = recorder.out_of_memory
        judged = recorder.executed - 1
        if tests[0].test.kind == "call" and ending.startswith("time limit") and judged > 0:
            lower = RUNTIME_ERROR if recorder.raised else FAILED
            outcome = PASSED if recorder.passed == judged else PARTIAL if recorder.passed else lower
            detail = recorder.raised or recorder.wrong
            return _Run(outcome, recorder.passed, judged, detail, len(tests) - judged, recorder.failed)
        complete = recorder.complete and lost is None
        passed, total = recorder.passed, max(recorder.executed, written)
        if complete and passed == recorder.executed > 0:
            total = recorder.executed  # a check function may skip assertions on purpose
        if complete and passed == total > 0:
            return _Run(PASSED, passed, total)
        raised = recorder.raised or ending
        kind = PARTIAL if passed else RUNTIME_ERROR if raised else FAILED
        detail = self._with_limit(raised or recorder.wrong or "no assertion was reached")
        failed = recorder.failed
        if failed is not None:
            failed = failed._replace(raised=ending if failed.is_lost else self._with_limit(failed.raised))
        return _Run(kind, passed, max(total, 1), detail, failed=failed)

    def _load(self, program: str, channel: Channel) -> tuple[Loaded | CompileFailed | ProgramRaised | None, str | None]:
        """What became of the program when it was loaded; or nothing, and why."""
        try:
            channel.send(LoadFunctions(program, self._tests.setup_code, self._tests.entry_point, bool(self._expected)))
            return channel.receive(Loaded, CompileFailed, ProgramRaised), None
        except (ChannelClosedError, ValueError) as error:
            return None, str(error)

    def _run_tests(
        self, tests: list[_Numbered], loaded: Loaded, names: dict[str, Any], session: Session, recorder: Recorder
    ) -> str | None:
        """Runs the test code; why the candidate was lost, if it was."""
        try:
            names[RECORDER] = recorder
            self._name_candidate(names, session, loaded)
            self._under_test = names.get(self._tests.entry_point or "")
            for recorder.test, test in tests:
                try:
                    self._run_test(test, names, session, recorder)
                except (CandidateGoneError, StopTestingError, JudgeFailedError):
                    raise
                except BaseException as error:
                    recorder.fails_between_assertions(error)
                if session.gone is not None:
                    break
        except StopTestingError:
            recorder.complete = False
        except CandidateGoneError as error:
            recorder.lost(error)
        return None if session.gone is None else str(session.gone)

    def _name_candidate(self, names: dict[str, Any], session: Session, loaded: Loaded) -> None:
        """Puts stand-ins for what the tests expect of the candidate; the problem's own names are never replaced."""
        wanted = {name for name in self._expected if name not in names}
        for name in wanted:
            found = meant_by(name, loaded.library.get(name)) or _imported(self._tests.imports.get(name))
            if found is not None:
                names[name] = found
            elif name in loaded.classes:
                names[name] = session.named_class(name, loaded.classes[name])
            elif name in loaded.functions:
                names[name] = session.function(name, loaded.functions[name])
            elif name in loaded.variables:
                session.follow_variable(name)
        entry_point = self._tests.entry_point
        if entry_point in loaded.classes:
            names[entry_point] = session.named_class(entry_point, loaded.classes[entry_point])
        elif entry_point:
            names[entry_point] = session.function(entry_point, loaded.functions.get(entry_point))

    def _run_test(self, test: FunctionTest, names: dict[str, Any], session: Session, recorder: Recorder) -> None:
        with recorder if not test.assertions else contextlib.nullcontext():
            if test.kind == "call":
                assert self._tests.entry_point is not None
                result = session.operate(Operation.CALL, self._tests.entry_point, *json.loads(test.arguments))
                recorder.saw(0, result)
                if not same_result(result, json.loads(test.result), self._settings["number_tolerance"]):
                    raise AssertionError
                return
            if test.kind == "check":
                names.pop("check", None)  # of an earlier test
            exec(self._codes[test.code], names)
            if test.kind == "check":
                names["check"](self._under_test)

    # --- Whole programs --------------------------------------------------------------------------------------------------

    def _judge_program(self, program: str, runner: Runner, test: ProgramTest) -> _Run:
        text = self._output_of(program, runner, test.stdin)
        if isinstance(text, _Run):
            return text
        if same_output(text, test.stdout, self._settings["number_tolerance"]):
            return _Run(PASSED, passed=1)
        output = bounded(plain_output(text)) if self._tests.tells else None
        return _Run(FAILED, detail="AssertionError: another output", output=output)

    def _output_of(self, program: str, runner: Runner, stdin: str) -> str | _Run:
        """The standard output of a whole program, or what it came to instead."""
        channel = runner.start(exact=True)
        with _memory_file(stdin) as given, _memory_file("") as output:
            try:
                channel.send(RunProgram(program, self._tests.setup_code))
                socket.send_fds(channel.socket, [b"d"], [given.fileno(), output.fileno()])
                answer = channel.receive(CompileFailed, ProgramRaised, ProgramRan)
            except (ChannelClosedError, OSError, ValueError) as error:
                detail, status = runner.why_lost(str(error))
                if status != 0:  # else it ended itself, as a program may
                    return _Run(RUNTIME_ERROR, detail=self._with_limit(detail))
                answer = ProgramRan()
            finally:
                channel.close()
                runner.settle()  # nothing writes to the output any more
            if isinstance(answer, CompileFailed):
                return _Run(COMPILE_ERROR, detail=answer.detail[:LONGEST_DETAIL])
            if isinstance(answer, ProgramRaised):
                return _Run(RUNTIME_ERROR, detail=self._with_limit(answer.detail[:LONGEST_DETAIL]))
            return os.pread(output.fileno(), self._settings["file_bytes"], 0).decode("utf-8", "replace")

    # --- Observations ----------------------------------------------------------------------------------------------------

    def observe(self, program: str, runner: Runner) -> Observed:
        """What the expressions come to, or what the program prints for each input.

        Raises:
            JudgeFailedError: The judge failed.
        """
        _start_afresh()
        seen = self._observe_expressions(program, runner)
        at_a_limit = 0
        for test in self._programs:
            if at_a_limit == _MOST_AT_A_LIMIT:
                seen.append(_not_made())
                continue
            text = self._output_of(program, runner, test.stdin)
            seen.append(_Seen(None, text.detail) if isinstance(text, _Run) else _Seen(bounded(plain_output(text))))
            at_a_limit += _is_limit(seen[-1].error)
        return Observed([one.value for one in seen], [one.error for one in seen], self.out_of_memory)

    def nothing_observed(self, reason: str) -> Observed:
        """The answer where what a program sent led nowhere."""
        count = len(self._code_tests) + len(self._programs)
        return Observed([None] * count, [reason] * count, checker_ends=True)

    def _observe_expressions(self, program: str, runner: Runner) -> list[_Seen]:
        """In one process as long as it lives; each expression may take the whole limit of time."""
        seen: list[_Seen] = []
        total = len(self._code_tests)
        at_a_limit = 0
        while len(seen) < total:
            before = len(seen)
            ending = self._observe_in_one_process(program, runner, seen)
            if len(seen) == total or (ending.startswith("time limit") and len(seen) > before):
                continue  # what took the time of the others gets the whole limit of another process
            seen.append(_Seen(None, ending))
            at_a_limit += _is_limit(ending)
            if at_a_limit == _MOST_AT_A_LIMIT:
                seen += [_not_made()] * (total - len(seen))
        return seen

    def _observe_in_one_process(self, program: str, runner: Runner, seen: list[_Seen]) -> str:
        """Evaluates what is left, until the candidate is lost; why it was, or nothing."""
        todo = self._code_tests[len(seen) :]
        channel = runner.start()
        try:
            answer, lost = self._load(program, channel)
            if isinstance(answer, CompileFailed | ProgramRaised):
                seen += [_Seen(None, self._with_limit(answer.detail[:LONGEST_DETAIL]))] * len(todo)
                return ""
            if answer is not None:
                lost = self._evaluate(todo, answer, channel, seen)
            ending = runner.why_lost(lost)[0] if lost is not None else ""
        finally:
            channel.close()
            runner.stop_if_running()
        if answer is None:  # it is lost whenever it is loaded
            seen += [_Seen(None, ending)] * len(todo)
        return ending

    def _evaluate(self, todo: list[_Numbered], loaded: Loaded, channel: Channel, seen: list[_Seen]) -> str | None:
        names = self._namespace()
        session = Session(channel, names)
        recorder = names[RECORDER] = Recorder(session, stop_at_first_failure=False)
        try:
            self._name_candidate(names, session, loaded)
            for _, test in todo:
                seen.append(self._evaluated(self._codes[test.code], names, session, recorder))
        except CandidateGoneError:
            pass
        self.out_of_memory |= recorder.out_of_memory
        return None if session.gone is None else str(session.gone)

    def _evaluated(self, code: types.CodeType, names: dict[str, Any], session: Session, recorder: Recorder) -> _Seen:
        try:
            value = eval(code, names)
            session.settle()
            return _Seen(canonical(value))
        except (CandidateGoneError, JudgeFailedError):
            raise
        except NotShownError as error:
            return _Seen(None, str(error))
        except BaseException as error:
            recorder.note(error)
            return _Seen(None, self._with_limit(describe(error, None)))

    def _with_limit(self, detail: str) -> str:
        if detail.startswith("MemoryError"):
            return f"{detail} (memory limit of {self._settings['memory_bytes'] // 2**20} MiB)"
        if "File too large" in detail:
            return f"{detail} (output limit of {self._settings['file_bytes']} bytes)"
        return detail


def _start_afresh() -> None:
    fix_seeds()
    if (decimal := sys.modules.get("decimal")) is not None:
        decimal.setcontext(decimal.Context())  # a test may have changed the one before


def _is_limit(error: str) -> bool:
    return error.startswith(("time limit", "memory limit"))


def _not_made() -> _Seen:
    return _Seen(None, f"not run: {_MOST_AT_A_LIMIT} before it came to a limit of time or memory")


class _NoRecorder:
    """While the problem's own code is run, nothing is recorded."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: name != "part_failed"


def _imported(place: list[str] | None) -> Any:
    """What the tests of a problem use without importing it."""
    if not place:
        return None
    module, *attribute = place
    with contextlib.suppress(ImportError):
        found = library_module(module) or importlib.import_module(module)
        return getattr(found, attribute[0], None) if attribute else found
    return None


def _memory_file(text: str) -> Any:
    """A file without a name, with a text to read from its start."""
    file = os.fdopen(os.memfd_create("judge"), "w+b")
    file.write(text.encode("utf-8", "surrogatepass"))
    file.flush()
    file.seek(0)
    return file
