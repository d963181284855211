"""Limits of memory and time count what a program uses and what the machine gave it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time

import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, Problem, UnitTest
from trl_rrtf.judging import worker as worker_module

RIGHT = "def f(x):\n    return x + 1\n"


def asserts(*codes, **options):
    tests = [UnitTest(kind="assert", code=code) for code in codes]
    return Problem(problem_id="p/1", prompt="Write f.", tests=tests, **{"entry_point": "f", **options})


INCREMENT = asserts("assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0")


def judged(config, *cases):
    with Judge(config) as judge:
        judge.judge(INCREMENT, RIGHT)
        found = [judge.judge(problem, program) for problem, program in cases]
        assert judge.judge(INCREMENT, RIGHT).outcome is Outcome.PASSED
        return found


# --- Memory --------------------------------------------------------------------------------------------------------------

DEEP = """
import sys, threading
sys.setrecursionlimit(10 ** 6)
threading.stack_size({stack})
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
def f(n):
    found = []
    thread = threading.Thread(target=lambda: found.append(depth(n)))
    thread.start()
    thread.join()
    return found
"""


@pytest.mark.parametrize("memory_mb", [256, 512])
@pytest.mark.parametrize("stack", ["2 ** 28", "256 * 2 ** 20", "2 ** 29"])
def test_a_reserved_stack_is_not_used_memory(memory_mb, stack):
    config = JudgeConfig(memory_mb=memory_mb, num_workers=1)
    (verdict,) = judged(config, (asserts("assert f(10 ** 5) == [10 ** 5]"), DEEP.format(stack=stack)))
    assert verdict.outcome is Outcome.PASSED, verdict.detail


def test_a_whole_program_that_recurses_in_a_thread_passes():
    program = DEEP.format(stack="2 ** 28") + "threading.Thread(target=lambda: print(depth(int(input())))).start()\n"
    test = UnitTest(kind="stdio", stdin="50000\n", stdout="50000\n")
    (verdict,) = judged(JudgeConfig(memory_mb=256, num_workers=1), (Problem(problem_id="p", prompt="p", tests=[test]), program))
    assert verdict.outcome is Outcome.PASSED, verdict.detail


def test_many_threads_need_little_memory():
    program = "from concurrent.futures import ThreadPoolExecutor\ndef f(n):\n    with ThreadPoolExecutor(n) as pool:\n        return sum(pool.map(lambda i: len(bytes(10 ** 5)) // 10 ** 5, range(5 * n)))\n"
    (verdict,) = judged(JudgeConfig(memory_mb=128, num_workers=1), (asserts("assert f(32) == 160"), program))
    assert verdict.outcome is Outcome.PASSED, verdict.detail


@pytest.mark.parametrize(
    "program", ["x = bytearray(2 ** 28)\n", "x = []\nwhile True: x.append(bytearray(10 ** 6))\n", "[0] * 10 ** 9\n"]
)
def test_too_much_memory_is_a_memory_error(program):
    caught = f"try:\n    {program.replace(chr(10), '; ').rstrip('; ')}\nexcept MemoryError:\n    x = None\n"
    if "while" in program:
        caught = "x = []\ntry:\n    while True: x.append(bytearray(10 ** 6))\nexcept MemoryError:\n    x = None\n"
    plain, survived = judged(
        JudgeConfig(memory_mb=256, num_workers=1), (INCREMENT, program + RIGHT), (INCREMENT, caught + RIGHT)
    )
    assert plain.detail.endswith("(memory limit of 256 MiB)")
    assert plain.detail.startswith("MemoryError")
    assert survived.outcome is Outcome.PASSED


USES = """
import threading
def fill(n):
    kept = []
    for _ in range(n):
        kept.append(bytearray(b'x') * 2 ** 20)
    return len(kept)
def f(n):
    found = []
    thread = threading.Thread(target=lambda: found.append(fill(n)))
    thread.start()
    thread.join()
    return found
"""


def test_memory_in_use_is_watched_where_address_space_is_not_the_limit():
    config = JudgeConfig(memory_mb=256, num_workers=1)
    raised = USES.replace(
        "import threading\n", "import resource, threading\nresource.setrlimit(resource.RLIMIT_AS, (2 ** 30,) * 2)\n"
    )
    shared = USES.replace("bytearray(b'x') * 2 ** 20", "filled()").replace(
        "def fill",
        "import mmap\ndef filled():\n    part = mmap.mmap(-1, 2 ** 20)\n    part.write(b'x' * 2 ** 20)\n    return part\ndef fill",
        1,
    )
    few, *many = judged(
        config,
        (asserts("assert f(150) == [150]"), USES),
        *((asserts("assert f(700) == [700]"), program) for program in (USES, raised, shared)),
    )
    assert few.outcome is Outcome.PASSED, few.detail
    assert [(verdict.outcome, verdict.detail) for verdict in many] == [(Outcome.RUNTIME_ERROR, "memory limit of 256 MiB")] * 3


# --- Time ----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def busy(count):
    """Processes that do nothing but use the processors, each of a session, to which Linux may give equal shares."""
    burn = ["sh", "-c", "while :; do :; done"]
    processes = [subprocess.Popen(burn, start_new_session=True) for _ in range(count)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


NEEDS = """
import time
def f(seconds):
    while time.process_time() < seconds: pass
    return True
"""


def test_a_busy_machine_makes_no_false_time_out():
    """The program needs 0.6 s of 1 s, and gets a third of a processor."""
    with busy(2 * len(os.sched_getaffinity(0)) + 1):
        (verdict,) = judged(JudgeConfig(timeout=1, num_workers=1), (asserts("assert f(0.6)"), NEEDS))
    assert verdict.outcome is Outcome.PASSED, verdict.detail
    assert verdict.seconds > 1


def test_limits_of_time_hold_on_a_busy_machine():
    sleeps = "import time\ndef f(x):\n    time.sleep(20)\n"
    burns = "def f(x):\n    while True: pass\n"
    with busy(2 * len(os.sched_getaffinity(0)) + 1):
        asleep, awake = judged(JudgeConfig(timeout=0.5, num_workers=1), (INCREMENT, sleeps), (INCREMENT, burns))
    for verdict in (asleep, awake):
        assert (verdict.outcome, verdict.detail) == (Outcome.RUNTIME_ERROR, "time limit of 0.5 s")
    assert asleep.seconds < 1
    assert awake.seconds < 5


def test_threads_that_wait_for_each_other_make_no_time():
    """They are ready to run and have no processor, but through nobody else."""
    spin = """
import hashlib, threading, time
data = b'x' * 2 ** 14
def f(x):
    def work():
        while True:
            hashlib.sha256(data).digest()
            time.sleep(0.002)
    for _ in range(50): threading.Thread(target=work, daemon=True).start()
    time.sleep(60)
"""
    (verdict,) = judged(JudgeConfig(timeout=1, num_workers=1), (INCREMENT, spin))
    assert (verdict.outcome, verdict.detail[:19]) == (Outcome.RUNTIME_ERROR, "time limit of 1 s")
    assert verdict.seconds < 3


def test_a_machine_that_gives_almost_nothing_says_nothing_of_the_program():
    """Ten times the limit is not enough for what the limit allows."""
    with Judge(JudgeConfig(timeout=0.15, num_workers=1)) as judge:
        assert judge.judge(INCREMENT, RIGHT).outcome is Outcome.PASSED
        with busy(25 * len(os.sched_getaffinity(0))):
            verdict = judge.judge(INCREMENT, "import time\nwhile time.process_time() < 0.14: pass\n" + RIGHT)
    assert verdict.outcome is Outcome.INFRASTRUCTURE, verdict
    assert "busy" in verdict.detail


@pytest.mark.parametrize("first", ["", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"])
def test_more_processor_time_than_allowed_is_a_time_out(first):
    burn = """
import hashlib, threading
data = b'x' * 2 ** 22
def work():
    while True: hashlib.sha256(data).digest()
def f(x):
    for _ in range(8): threading.Thread(target=work, daemon=True).start()
    work()
"""
    with Judge(JudgeConfig(timeout=2, num_workers=1, retries=0)) as judge:
        verdict = judge.judge(INCREMENT, first + burn)
    assert verdict.outcome is Outcome.RUNTIME_ERROR
    assert verdict.detail.startswith("time limit of 2 s")
    assert verdict.seconds < 20


# --- Text ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 64_000,
        "import " * 1_500_000,
        "from\t" * 2_000_000,
        " \t" * 5_000_000 + "x",
        ("import x" + " " * 90 + "\n") * 100_000,
        "import rando" * 10**6,
    ],
    ids=["blank lines", "imports", "tabs", "spaces", "lines", "almost"],
)
def test_the_choice_of_a_server_is_quick_for_any_text(text):
    started = time.monotonic()
    assert not worker_module._USES_HEAVY_MODULE.search(text)
    assert time.monotonic() - started < 2
    assert worker_module._USES_HEAVY_MODULE.search(text + "\n  from random import choice\n")


def test_two_judges_at_once_are_as_they_were_alone():
    """Threads that start and stop judges, each with a folder of its own."""
    outcomes = []

    def work():
        with Judge(JudgeConfig(num_workers=1)) as judge:
            outcomes.append(judge.judge(INCREMENT, RIGHT).outcome)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Outcome.PASSED] * 6
