"""What a judge leaves behind after many programs: memory, processes, descriptors, folders.

Right, wrong, slow to end, hostile and littering programs in turn, from several problems. After every thousand the memory of the
calling process and of all that it started is read; at the end the judge is closed, and nothing of it may be left.

    python recipes/benchmarks/judge_endurance.py --programs 20000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import tempfile
import time

import psutil

from trl_rrtf import Judge, JudgeConfig, Problem, UnitTest

MIB = 2**20
PROGRAMS = {
    "right": "def f(x):\n    return x + 1\n",
    "wrong": "def f(x):\n    return x\n",
    "does not compile": "def f(x:\n",
    "raises": "def f(x):\n    raise ValueError([x] * 1000)\n",
    "a class": "class f(int):\n    def __new__(cls, x): return int.__new__(cls, x + 1)\n",
    "large results": "def f(x):\n    return [list(range(100)) for _ in range(200)]\n",
    "files": "import os\nos.makedirs('a/b/c')\nfor i in range(50): open(f'a/b/c/{i}', 'w').write('x' * 1000)\n"
    "os.chmod('a', 0)\ndef f(x): return x + 1\n",
    "threads": "import threading, time\nfor _ in '12345678':\n"
    "    threading.Thread(target=time.sleep, args=[9], daemon=True).start()\ndef f(x): return x + 1\n",
    "ends early": "import os\ndef f(x): os._exit(3)\n",
    "breaks the protocol": "import os\ndef f(x): os.write(3, b'x' * 100)\n",
    "memory": "def f(x): return len(bytearray(10**8)) and x + 1\n",
}


def problems(count):
    """Problems with the same tests, so that checkers come and go."""
    for number in range(count):
        tests = [UnitTest(kind="assert", code="assert f(1) == 2"), UnitTest(kind="call", input="[2]", output="3")]
        yield Problem(problem_id=f"p/{number}", prompt="-", tests=tests, entry_point="f")


def items(count, per_problem=50):
    """Pairs of a problem and a program."""
    texts = list(PROGRAMS.values())
    for number, problem in enumerate(problems(count // per_problem)):
        for place in range(per_problem):
            yield problem, texts[(number + place) % len(texts)]


def usage():
    """Memory of this process and of its descendants in MiB, number of processes and of descriptors."""
    own = psutil.Process()
    memory = processes = 0
    for process in own.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended in the meantime
            if process.status() != psutil.STATUS_ZOMBIE:
                memory += process.memory_info().rss
                processes += 1
    return own.memory_info().rss / MIB, memory / MIB, processes, own.num_fds()


def judge_folders():
    """Folders of judges in the temporary folder."""
    return {name for name in os.listdir(tempfile.gettempdir()) if "judge-" in name}


def main():
    """Judges, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=2_000)
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    folders, before = judge_folders(), usage()
    print(f"before: {before[0]:.0f} MiB, {before[2]} processes, {before[3]} descriptors")
    print("| programs | seconds | own MiB | descendants' MiB | processes | descriptors |\n|---|---|---|---|---|---|")
    started = time.monotonic()
    with Judge(JudgeConfig(timeout=2)) as judge:
        for number, _ in enumerate(judge.judge_many(items(arguments.programs)), start=1):
            if number % arguments.every == 0:
                own, others, processes, descriptors = usage()
                seconds = time.monotonic() - started
                print(f"| {number} | {seconds:.0f} | {own:.0f} | {others:.0f} | {processes} | {descriptors} |", flush=True)
    after = usage()
    left = judge_folders() - folders
    print(f"after: {after[0]:.0f} MiB, {after[2]} processes, {after[3]} descriptors, folders left: {sorted(left) or 'none'}")
    if left or after[2] > before[2] or after[3] > before[3]:
        raise SystemExit("something is left")


if __name__ == "__main__":
    main()
