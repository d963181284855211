"""The process that holds a problem's tests and decides what a candidate has passed. The candidate runs elsewhere.

Started by the judge; forks one checker per problem, which judges all candidates of it that come, one after the other. A pass is
decided here, after the last assertion, from values that were compared here.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import time
import types
import warnings
from typing import Any

import msgpack

from trl_rrtf.judging.candidate import fix_seeds
from trl_rrtf.judging.candidate_server import LOST, RUN, STOP
from trl_rrtf.judging.channel import Channel, ChannelClosedError
from trl_rrtf.judging.containment import end_with_parent, hide_memory
from trl_rrtf.judging.remote import TEST_MODULE, CandidateGoneError, Session

RECORDER = "_recorder"
"""The name under which test code finds the context manager that records its assertions."""

COMPILE_ERROR, RUNTIME_ERROR, FAILED, PARTIAL, PASSED = range(5)
"""Outcomes, as in [`Outcome`][trl_rrtf.Outcome], whose module would make every fork slower."""

_LONGEST_DETAIL = 400
_STARVED_FRACTION = 0.25
"""A time-out of which so much was spent waiting for a processor says nothing about the candidate."""


class JudgeFailedError(BaseException):
    """The judge, not the candidate, failed; the program is judged again. No `except Exception` of a test catches it."""


class _CandidateKilledError(JudgeFailedError):
    """Somebody else killed the candidate's process; where no layer refuses signals, it may have been the candidate itself."""


class _StopTestingError(BaseException):
    """Ends the tests early, where the first failure is enough."""


def main() -> None:
    """Runs until the judge closes the socket."""
    settings: dict[str, Any] = msgpack.unpackb(sys.stdin.buffer.read())
    os.environ.clear()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    warnings.simplefilter("ignore")
    hide_memory()
    end_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (settings["checker_memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _allow_deep_values()
    control = Channel(socket.socket(fileno=settings["descriptor"]), exact=True)
    runners = [_Runner(socket.socket(fileno=descriptor)) for descriptor in settings["runners"]]
    compile("0", "<warm-up>", "exec")  # the first call builds Python's syntax tree types, for milliseconds
    gc.collect()
    gc.freeze()
    while True:
        try:
            kind, *content = control.receive()
        except ChannelClosedError:
            return
        if kind != "problem":
            continue
        for module, *_ in content[0]["imports"].values():
            _load(module)  # here, so that it is loaded for the problems to come as well
        process = os.fork()
        if process == 0:
            _serve_problem(control, runners, content[0], settings)
        if os.waitpid(process, 0)[1] != 0:
            os._exit(1)  # the judge makes a new pair of workers


def _allow_deep_values() -> None:
    """Each level of a nested value takes some 45 kB of C stack while it is unpacked."""
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = 64 * 2**20
    resource.setrlimit(resource.RLIMIT_STACK, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _serve_problem(control: Channel, runners: list[_Runner], problem: dict[str, Any], settings: dict[str, Any]) -> None:
    """One checker: judges programs until the judge has no more for this problem."""
    status = 1
    try:
        end_with_parent()
        try:
            tests = _Tests(problem, settings)
        except BaseException as error:
            tests = None
            reason = f"the problem's own code failed: {type(error).__name__}: {error}"
        while True:
            kind, *content = control.receive()
            if kind == "end":
                break
            if tests is None:
                control.send("cannot judge", reason[:300])
                continue
            program, runner = content
            try:
                verdict = tests.judge(program, runners[runner])
            except JudgeFailedError as error:
                control.send("failed", str(error), isinstance(error, _CandidateKilledError))
                break
            control.send("verdict", verdict, tests.out_of_memory)
            if tests.out_of_memory:
                break
        for runner in runners:
            runner.settle()
        status = 0
    finally:
        os._exit(status)


class _Runner:
    """The checker's connection to a candidate server."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._control = Channel(end, exact=True)
        self._unread = False

    def start(self, exact: bool = False) -> Channel:
        """Starts a candidate's process; returns the channel to it.

        Raises:
            JudgeFailedError: The server is gone.
        """
        self.settle()
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._socket, [RUN], [theirs.fileno()])
        except OSError as error:
            raise JudgeFailedError(f"the candidate server is gone ({error})") from None
        finally:
            theirs.close()
        return Channel(ours, exact=exact)

    def stop(self) -> None:
        """Ends the candidate without waiting for that."""
        self._tell(STOP)
        self._unread = True

    def why_lost(self) -> tuple[int, bool, float]:
        """Wait status, whether the deadline came, and seconds that the process waited for a processor."""
        self._tell(LOST)
        return self._end()

    def settle(self) -> None:
        """Waits until the last candidate is gone."""
        if self._unread:
            self._unread = False
            self._end()

    def _tell(self, what: bytes) -> None:
        try:
            self._socket.sendall(what)
        except OSError as error:
            raise JudgeFailedError(f"the candidate server is gone ({error})") from None

    def _end(self) -> tuple[int, bool, float]:
        try:
            _, status, timed_out, _, waited = self._control.receive()
        except ChannelClosedError as error:
            raise JudgeFailedError(f"the candidate server is gone ({error})") from None
        return status, timed_out, waited


class _Recorder:
    """Counts what held. A context manager around each assertion."""

    def __init__(self, stop_at_first_failure: bool) -> None:
        self._stop = stop_at_first_failure
        self.passed = 0
        self.executed = 0
        self.wrong = ""
        self.raised = ""
        self.out_of_memory = False

    def __enter__(self) -> None:
        self.executed += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if error is None:
            self.passed += 1
            return True
        if isinstance(error, JudgeFailedError | _StopTestingError):
            return False
        self.note(error)
        if self._stop:
            raise _StopTestingError
        return True

    def note(self, error: BaseException) -> None:
        """Remembers the first wrong answer and the first exception."""
        if isinstance(error, CandidateGoneError):
            return
        self.out_of_memory |= isinstance(error, MemoryError) and not hasattr(error, "_of_candidate")
        text = _describe(error)
        if isinstance(error, AssertionError) and not hasattr(error, "_of_candidate"):
            self.wrong = self.wrong or f"{text}, test {self.executed}"
        else:
            self.raised = self.raised or text


def _describe(error: BaseException) -> str:
    text = str(error)[:300]
    line = getattr(error, "_line", None)
    name = type(error).__name__
    return f"{name}{': ' if text else ''}{text}{'' if line is None else f', line {line}'}"[:_LONGEST_DETAIL]


class _Tests:
    """The tests of one problem, compiled once and run against each candidate in a namespace of its own."""

    def __init__(self, problem: dict[str, Any], settings: dict[str, Any]) -> None:
        self._problem = problem
        self._settings = settings
        self._functions = [test for test in problem["tests"] if test["kind"] != "stdio"]
        self._programs = [test for test in problem["tests"] if test["kind"] == "stdio"]
        self._codes = {
            index: compile(test["code"], "<test>", "exec", dont_inherit=True)
            for index, test in enumerate(self._functions)
            if test["kind"] != "call"
        }
        self._trusted = [
            compile(code, "<setup>", "exec", dont_inherit=True) for code in (problem["helpers"], problem["setup_code"]) if code
        ]
        self._expected = set(problem["expected"])
        self.out_of_memory = False
        self._namespace()  # fails here and not at the first candidate

    def _namespace(self) -> dict[str, Any]:
        module = types.ModuleType(TEST_MODULE)
        sys.modules[TEST_MODULE] = module
        names = module.__dict__
        for code in self._trusted:
            exec(code, names)
        for name, (module_name, *attribute) in self._problem["imports"].items():
            if name not in names and (found := _load(module_name)) is not None:
                names[name] = getattr(found, attribute[0]) if attribute else found
        return names

    def judge(self, program: str, runner: _Runner) -> dict[str, Any]:
        """Runs one program against all tests.

        Raises:
            JudgeFailedError: The judge failed.
        """
        fix_seeds()
        started = time.monotonic()
        verdicts = [self._judge_functions(program, runner)] if self._functions else []
        for test in self._programs:
            verdicts.append(self._judge_program(program, runner, test))
            compiles = verdicts[-1]["outcome"] != COMPILE_ERROR
            if not compiles or (self._settings["stop_at_first_failure"] and verdicts[-1]["outcome"] != PASSED):
                break
        merged = _merge(verdicts, self._problem["written"])
        return {**merged, "seconds": round(time.monotonic() - started, 4)}

    # --- Tests of functions ----------------------------------------------------------------------------------------------

    def _judge_functions(self, program: str, runner: _Runner) -> dict[str, Any]:
        channel = runner.start()
        recorder = _Recorder(self._settings["stop_at_first_failure"])
        written: int = self._problem["written"] - len(self._programs)
        try:
            outcome, detail = self._load_and_test(program, channel, recorder)
        finally:
            channel.close()
        lost = outcome is None
        complete = outcome == PASSED
        starved = False
        if lost:
            ending, starved = self._ending(runner, detail)
        else:
            runner.stop()
        self.out_of_memory = recorder.out_of_memory
        passed, total = recorder.passed, max(recorder.executed, written)
        if complete and passed == recorder.executed and not self._settings["stop_at_first_failure"]:
            total = recorder.executed  # a check function may skip assertions on purpose
        verdict = {"passed": passed, "total": max(total, 1), "starved": starved}
        if outcome == COMPILE_ERROR:
            return {**verdict, "outcome": outcome, "detail": detail}
        if complete and passed == total > 0:
            return {**verdict, "outcome": PASSED, "detail": ""}
        raised = recorder.raised or (ending if lost else detail)
        detail = raised or recorder.wrong or "no assertion was reached"
        kind = PARTIAL if passed else RUNTIME_ERROR if raised else FAILED
        return {**verdict, "outcome": kind, "detail": self._with_limit(detail)}

    def _load_and_test(self, program: str, channel: Channel, recorder: _Recorder) -> tuple[int | None, str]:
        """What happened, and a detail: `PASSED` if all test code ran to its end, whatever was recorded; None if it was lost."""
        try:
            channel.send("functions", program, self._problem["setup_code"], "")
            answer, content, *exceptions = channel.receive()
        except (ChannelClosedError, ValueError) as error:
            return None, str(error)
        if answer in ("compile error", "import error"):
            kind = COMPILE_ERROR if answer == "compile error" else RUNTIME_ERROR
            return kind, str(content)[:_LONGEST_DETAIL]
        if answer != "loaded" or type(content) is not list or not exceptions or type(exceptions[0]) is not dict:
            return None, "a malformed answer"
        names = self._namespace()
        session = Session(channel, names)
        try:
            self._name_candidate(names, session, content, exceptions[0])
        except (TypeError, ValueError, IndexError) as error:  # names that no honest process sends
            return None, f"a malformed answer ({error})"
        names[RECORDER] = recorder
        complete = True
        for index, test in enumerate(self._functions):
            try:
                self._run_test(index, test, names, session, recorder)
            except (CandidateGoneError, _StopTestingError):
                break
            except JudgeFailedError:
                raise
            except BaseException as error:  # between the assertions of the test
                recorder.note(error)
                complete = False
        if session.gone is not None:
            return None, str(session.gone)
        return (PASSED if complete else FAILED), ""

    def _name_candidate(self, names: dict[str, Any], session: Session, defined: list[Any], exceptions: dict[Any, Any]) -> None:
        """Puts stand-ins for what the tests expect of the candidate; the problem's own names are never replaced."""
        entry_point = self._problem["entry_point"]
        for name in self._expected.intersection(name for name in defined if type(name) is str):
            if name not in names:
                is_exception = name in exceptions
                names[name] = session.foreign_exception(exceptions[name]) if is_exception else session.function(name)
        if entry_point:
            names[entry_point] = session.function(entry_point)

    def _run_test(self, index: int, test: dict[str, Any], names: dict[str, Any], session: Session, recorder: _Recorder) -> None:
        whole = recorder if not test["assertions"] else contextlib.nullcontext()
        with whole:
            if test["kind"] == "call":
                _call(session, self._problem["entry_point"], test)
                return
            if test["kind"] == "check":
                names.pop("check", None)  # of an earlier test
            exec(self._codes[index], names)
            if test["kind"] == "check":
                names["check"](session.function(self._problem["entry_point"]))

    # --- Whole programs --------------------------------------------------------------------------------------------------

    def _judge_program(self, program: str, runner: _Runner, test: dict[str, Any]) -> dict[str, Any]:
        channel = runner.start(exact=True)  # a descriptor comes over it
        verdict: dict[str, Any] = {"passed": 0, "total": 1, "starved": False, "outcome": RUNTIME_ERROR, "detail": ""}
        output = -1
        try:
            channel.send("main", program, self._problem["setup_code"], test["stdin"])
            answer, *content = channel.receive()
            if answer == "output":
                _, (output,), *_ = socket.recv_fds(channel.socket, 1, 1)
                answer, *content = channel.receive()
        except (ChannelClosedError, ValueError) as error:
            answer, content = "lost", [str(error)]
        try:
            if answer == "lost":
                detail, verdict["starved"], status = self._ending_with_status(runner, content[0])
                if status != 0 or output < 0:
                    return {**verdict, "detail": detail}
            else:
                runner.stop()
            if answer == "compile error":
                return {**verdict, "outcome": COMPILE_ERROR, "detail": str(content[0])[:_LONGEST_DETAIL]}
            if answer == "raised":
                return {**verdict, "detail": self._with_limit(str(content[0])[:_LONGEST_DETAIL])}
            text = os.pread(output, self._settings["file_bytes"], 0).decode("utf-8", "replace")
        finally:
            channel.close()
            if output >= 0:
                os.close(output)
        if _lines(text) == _lines(test["stdout"]):
            return {**verdict, "passed": 1, "outcome": PASSED}
        return {**verdict, "outcome": FAILED, "detail": "AssertionError: another output"}

    # --- Endings ---------------------------------------------------------------------------------------------------------

    def _ending(self, runner: _Runner, reason: str) -> tuple[str, bool]:
        detail, starved, _ = self._ending_with_status(runner, reason)
        return detail, starved

    def _ending_with_status(self, runner: _Runner, reason: str) -> tuple[str, bool, int]:
        """Why a candidate was lost, whether it had too little of the processor, and its exit status (or -1)."""
        status, timed_out, waited = runner.why_lost()
        timeout: float = self._settings["timeout"]
        if timed_out:
            return f"time limit of {timeout:g} s", waited > _STARVED_FRACTION * timeout, -1
        if status < 0:
            return f"the program broke the connection to its tests: {reason}", False, -1
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGKILL:
                raise _CandidateKilledError("killed by SIGKILL")
            if number == signal.SIGXCPU:
                return f"time limit of {timeout:g} s of the processor", False, -1
            return f"killed by {signal.Signals(number).name}", False, -1
        code = os.waitstatus_to_exitcode(status)
        return f"the program ended early (exit status {code})", False, code

    def _with_limit(self, detail: str) -> str:
        if detail.startswith("MemoryError"):
            return f"{detail} (memory limit of {self._settings['memory_bytes'] // 2**20} MiB)"
        if "File too large" in detail:
            return f"{detail} (output limit of {self._settings['file_bytes']} bytes)"
        return detail


def _call(session: Session, entry_point: str, test: dict[str, Any]) -> None:
    result = session.operate("call", entry_point, *json.loads(test["input"]))
    if _as_json(result) != json.loads(test["output"]):
        raise AssertionError


def _as_json(value: Any) -> Any:
    """A result as JSON would have it: tuples as lists, keys as text."""
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    if isinstance(value, dict):
        return {_json_key(key): _as_json(part) for key, part in value.items()}
    return value


def _json_key(key: Any) -> Any:
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return str(key) if isinstance(key, int | float) else key


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _merge(verdicts: list[dict[str, Any]], written: int) -> dict[str, Any]:
    """One verdict from those of several runs."""
    passed = sum(verdict["passed"] for verdict in verdicts)
    total = sum(verdict["total"] for verdict in verdicts)
    worst = min(verdicts, key=lambda verdict: verdict["outcome"])
    if worst["outcome"] != PASSED:
        total = max(total, written)
    outcome = worst["outcome"]
    if outcome != COMPILE_ERROR and 0 < passed < total:
        outcome = PARTIAL
    starved = any(verdict["starved"] for verdict in verdicts)
    return {"outcome": outcome, "passed": passed, "total": total, "detail": worst["detail"], "starved": starved}


if __name__ == "__main__":
    main()
