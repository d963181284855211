"""The process that holds a problem's tests and decides what a candidate has passed. The candidate runs elsewhere.

Started by the judge; forks one checker per problem, which judges all candidates of it that come, one after the other. A pass is
decided here, after the last assertion, from values that were compared here.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import signal
import socket
import sys
import time
import warnings
from typing import Any

import msgpack

from trl_rrtf.judging.checker.problem import RUNTIME_ERROR, Problem
from trl_rrtf.judging.checker.recorder import JudgeFailedError
from trl_rrtf.judging.checker.runner import Runner
from trl_rrtf.judging.wire.channel import Channel, ChannelClosedError
from trl_rrtf.judging.wire.process import end_with_parent, hide_memory
from trl_rrtf.judging.wire.protocol import (
    CannotJudge,
    ComparisonHung,
    EndProblem,
    Judged,
    JudgeFailed,
    JudgeProgram,
    Observed,
    ObserveProgram,
    ProblemTests,
)


def main() -> None:
    """Runs until the judge closes the socket."""
    settings: dict[str, Any] = msgpack.unpackb(sys.stdin.buffer.read())
    os.environ.clear()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    warnings.simplefilter("ignore")
    sys.set_int_max_str_digits(0)  # expected values may be longer
    hide_memory()
    end_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (settings["checker_memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _allow_deep_values()
    control = Channel(socket.socket(fileno=settings["descriptor"]), exact=True)
    runners = [
        Runner(socket.socket(fileno=descriptor), settings["timeout"], settings["memory_bytes"])
        for descriptor in settings["runners"]
    ]
    compile("0", "<warm-up>", "exec")  # the first call builds Python's syntax tree types, for milliseconds
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ChannelClosedError):
        while True:
            tests: ProblemTests = control.receive(ProblemTests)
            for module, *_ in tests.imports.values():
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)  # here, so that it is loaded for the problems to come as well
            process = os.fork()
            if process == 0:
                _serve_problem(control, runners, tests, settings)
            status = os.waitpid(process, 0)[1]
            if status != 0:
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
                    control.send(ComparisonHung())
                os._exit(1)  # the judge makes a new pair of workers


def _allow_deep_values() -> None:
    """Each level of a nested value takes some 45 kB of C stack while it is unpacked."""
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = 64 * 2**20
    resource.setrlimit(resource.RLIMIT_STACK, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _serve_problem(control: Channel, runners: list[Runner], tests: ProblemTests, settings: dict[str, Any]) -> None:
    """One checker: judges programs until the judge has no more for this problem."""
    status = 1
    try:
        end_with_parent()
        problem: Problem | None = None
        reason = ""
        try:
            problem = Problem(tests, settings)
        except BaseException as error:
            reason = f"the problem's own code failed: {type(error).__name__}: {error}"
        while not isinstance(message := control.receive(JudgeProgram, ObserveProgram, EndProblem), EndProblem):
            if problem is None:
                control.send(CannotJudge(reason[:300]))
                continue
            answer = _answer(problem, message, runners[message.server])
            control.send(answer)
            if isinstance(answer, JudgeFailed) or (isinstance(answer, Judged | Observed) and answer.checker_ends):
                break
        for runner in runners:
            runner.settle()
        status = 0
    finally:
        os._exit(status)


def _answer(
    problem: Problem, message: JudgeProgram | ObserveProgram, runner: Runner
) -> Judged | Observed | CannotJudge | JudgeFailed:
    started = time.monotonic()
    try:
        if isinstance(message, ObserveProgram):
            return problem.observe(message.program, runner)
        return problem.judge(message.program, runner)
    except JudgeFailedError as error:
        if error.for_good:
            return CannotJudge(str(error))
        return JudgeFailed(str(error), error.candidate_killed)
    except BaseException as error:  # only the candidate could send something that leads here
        detail = f"what the program sent could not be compared ({type(error).__name__})"
        if isinstance(message, ObserveProgram):
            return problem.nothing_observed(detail)
        return Judged(RUNTIME_ERROR, 0, 1, round(time.monotonic() - started, 4), detail, checker_ends=True)


if __name__ == "__main__":
    main()
