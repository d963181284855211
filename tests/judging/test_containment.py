"""What is reported holds, and nothing that a program does reaches the next one or outlives the judge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, Problem, UnitTest
from trl_rrtf.judging import folder as folder_module
from trl_rrtf.judging.candidate.containment import NOBODY
from trl_rrtf.judging.isolation import probe_isolation
from trl_rrtf.judging.wire import folders

WITHOUT_VIEW = ("namespaces", "file view", "bubblewrap")
"""What Docker leaves by default: Landlock and seccomp."""

RIGHT = "def f(x):\n    return x + 1\n"


def asserts(*codes):
    tests = [UnitTest(kind="assert", code=code) for code in codes]
    return Problem(problem_id="p/1", prompt="Write f.", tests=tests, entry_point="f")


INCREMENT = asserts("assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0")
NOTHING = asserts("assert f() == []")


@pytest.fixture(params=[(), WITHOUT_VIEW], ids=["all layers", "no file view"])
def judge(request, monkeypatch):
    monkeypatch.setattr("trl_rrtf.judging.judge._LAYERS_LEFT_OUT", request.param)
    with Judge(JudgeConfig(timeout=3, num_workers=1)) as judge:
        yield judge


def needs(judge, *layers):
    assert judge.judge(INCREMENT, RIGHT).outcome is Outcome.PASSED
    lacking = [layer for layer in layers if not judge._workers[0].layers[layer].startswith("on")]
    if lacking:
        pytest.skip(f"this system lacks {lacking}: {judge._workers[0].layers}")


def judged(judge, problem, program):
    verdict = judge.judge(problem, program)
    assert verdict.outcome is Outcome.PASSED, verdict.detail


ATTEMPTS = """
import ctypes, fcntl, functools, os, platform, resource, socket
library = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == 'aarch64'
def call(x86, arm, *arguments):
    number = arm if ARM else x86
    result = library.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), 'refused')
    return result
def succeeded(**acts):
    done = []
    for name, act in acts.items():
        try: act()
        except OSError: continue
        done.append(name)
    return done
"""


# --- What is reported holds ----------------------------------------------------------------------------------------------


def facts(path):
    status = path.stat()
    return status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, os.listxattr(path)


@pytest.fixture
def open_folder():
    """A folder that a candidate of any user could write to."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def test_files_are_not_changed_in_any_way(judge, open_folder):
    needs(judge, "landlock", "seccomp")
    victim = open_folder / "victim"
    victim.write_text("untouched")
    victim.chmod(0o600)
    if os.geteuid() == 0 and judge._workers[0].layers["user"].startswith("on"):
        os.chown(victim, NOBODY, NOBODY)
    before = facts(victim)
    program = f"""{ATTEMPTS}
path, folder = {str(victim)!r}, {str(open_folder)!r}
def f():
    anywhere = os.open(folder, os.O_PATH) if os.path.exists(folder) else os.open('/', os.O_PATH)
    python = open(os.__file__)
    return succeeded(
        chmod=lambda: os.chmod(path, 0o777),
        chmod_at=lambda: os.chmod('victim', 0o777, dir_fd=anywhere),
        chmod_2=lambda: call(452, 452, anywhere, b'victim', 0o777, 0),
        chmod_python=lambda: os.fchmod(python.fileno(), 0o777),
        chown=lambda: os.chown(path, os.getuid(), os.getgid()),
        lchown=lambda: os.lchown(path, os.getuid(), os.getgid()),
        chown_python=lambda: os.fchown(python.fileno(), os.getuid(), os.getgid()),
        utime=lambda: os.utime(path, (0, 0)),
        utime_python=lambda: os.utime(python.fileno(), (0, 0)),
        futimesat=lambda: call(261, 88, anywhere, b'victim', 0),
        setxattr=lambda: os.setxattr(path, 'user.x', b'x'),
        setxattr_at=lambda: call(463, 463, anywhere, b'victim', 0, b'user.x', b'x', 16),
        removexattr=lambda: os.removexattr(path, 'user.x'),
        truncate=lambda: os.truncate(path, 0),
        rename=lambda: os.rename(path, path + '2'),
        link=lambda: os.link(path, 'here'),
        chdir=lambda: os.chdir(folder),
        fchdir=lambda: os.fchdir(anywhere) or os.stat('victim'),
        chroot=lambda: os.chroot(folder),
        watch=lambda: call(254, 27, call(294, 26, 0), path.encode(), 2),
    )
"""
    judged(judge, NOTHING, program)
    assert facts(victim) == before


def test_without_a_file_view_the_report_says_that_names_and_sizes_are_seen(judge):
    report = judge.isolation()
    view = report.layers["file view"].startswith("on")
    assert report.properties["metadata"] == view
    assert view or "no metadata" in report.summary()


@pytest.mark.parametrize("without", [("seccomp",), (*WITHOUT_VIEW, "seccomp"), (*WITHOUT_VIEW, "landlock")])
def test_the_report_is_found_out_by_trying(without):
    report = probe_isolation(JudgeConfig(), without)
    if "seccomp" in without:
        assert not report.properties["signals"]
        assert not report.properties["memory"]
    if "file view" in without:
        assert not report.properties["files"]
        assert not report.properties["metadata"]


FILES_OF_ITS_OWN = """
import os, shutil, tempfile
def f():
    with open('a.txt', 'w') as file: file.write('x')
    os.chmod('a.txt', 0o640)
    shutil.copy('a.txt', 'b.txt')
    shutil.copy2('a.txt', 'c.txt')
    os.utime('b.txt', (1, 1))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.chdir('..')
    return [oct(os.stat('b.txt').st_mode & 0o777), os.stat('b.txt').st_mtime]
"""


def test_a_program_may_do_what_it_likes_with_its_own_files(judge):
    needs(judge, "seccomp")
    problem = asserts("assert f() == ['0o640', 1.0]")
    if judge._workers[0].layers["file view"].startswith("on"):
        judged(judge, problem, FILES_OF_ITS_OWN)
    else:  # refused, and no lie
        assert "PermissionError: [Errno 1]" in judge.judge(problem, FILES_OF_ITS_OWN).detail
    plain = "import os\ndef f():\n    os.makedirs('a/b')\n    open('a/b/c', 'w').write('x')\n    os.rename('a/b/c', 'a/b/d')\n"
    judged(judge, asserts("assert f() == ['d']"), f"{plain}    return os.listdir('a/b')\n")


def test_no_signal_is_sent_through_a_descriptor(judge):
    needs(judge, "seccomp")
    received = []
    old = signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
    try:
        program = f"""{ATTEMPTS}
HIGH = 1 << 32  # the kernel looks at the lower half of such arguments
def f():
    end, other = socket.socketpair()
    done = []
    for target in ({os.getpid()}, os.getppid(), os.getpid()):
        fd = end.fileno()
        done += succeeded(
            owner=lambda: fcntl.fcntl(fd, 8, target),
            owner_high=lambda: call(72, 25, fd, 8 + HIGH, target),
            owner_ex=lambda: fcntl.fcntl(fd, 15, (1).to_bytes(4, 'little') + target.to_bytes(4, 'little')),
            signal=lambda: fcntl.fcntl(fd, 10, {int(signal.SIGUSR1)}),
            notify=lambda: fcntl.fcntl(os.open('.', os.O_RDONLY), 1026, 2),
            asynchronous=lambda: fcntl.ioctl(fd, 0x5452, (1).to_bytes(4, 'little')),
            asynchronous_high=lambda: call(16, 29, fd, 0x5452 + HIGH, (1).to_bytes(4, 'little')),
            owner_of_socket=lambda: fcntl.ioctl(fd, 0x8901, target.to_bytes(4, 'little')),
            group_of_socket=lambda: fcntl.ioctl(fd, 0x8902, target.to_bytes(4, 'little')),
        )
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
        other.send(b'x')
    return done
"""
        judged(judge, NOTHING, program)
        judged(judge, asserts("assert f() == 1"), "import fcntl, os\ndef f():\n    return fcntl.fcntl(0, fcntl.F_GETFD) + 1\n")
        time.sleep(0.05)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert not received


# --- Nothing reaches the next program -------------------------------------------------------------------------------------


def servers(judge):
    """The candidate servers of a judge, without what they forked, which has a session of its own."""
    (worker,) = judge._workers
    time.sleep(0.1)  # the next candidate gets ready
    found = [psutil.Process(number) for number in worker.process_ids()]
    found += [child for process in found for child in process.children(recursive=True)]
    found = [process for process in found if os.getsid(process.pid) in worker.process_ids()]
    return [process for process in found if "candidate.server" in " ".join(process.cmdline())]


def state(process):
    with process.oneshot():
        return (
            process.pid,
            process.nice(),
            process.cpu_affinity(),
            process.ionice(),
            process.name(),
            Path(f"/proc/{process.pid}/limits").read_text(),
            os.sched_getscheduler(process.pid),
            Path(f"/proc/{process.pid}/oom_score_adj").read_text(),
        )


def test_the_server_is_not_changed(judge):
    needs(judge, "seccomp", "landlock")
    before = [state(server) for server in servers(judge)]
    assert before
    program = f"""{ATTEMPTS}
HIGH = 1 << 32
def write(path):
    with open(path, 'w') as file: file.write('500')
def f():
    done = []
    for target in (os.getppid(), 1, {os.getpid()}):
        core = {{min(os.sched_getaffinity(0))}}
        done += succeeded(
            nice=lambda: os.setpriority(os.PRIO_PROCESS, target, 19),
            nice_high=lambda: call(141, 140, HIGH, target, 19),
            nice_of_user=lambda: os.setpriority(os.PRIO_USER, 0, 19),
            nice_of_user_by_number=lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19),
            nice_of_group=lambda: os.setpriority(os.PRIO_PGRP, target, 19),
            cores=lambda: os.sched_setaffinity(target, core),
            scheduler=lambda: os.sched_setscheduler(target, os.SCHED_IDLE, os.sched_param(0)),
            parameters=lambda: os.sched_setparam(target, os.sched_param(0)),
            attributes=lambda: call(314, 274, target, (48).to_bytes(4, 'little') + (5).to_bytes(4, 'little') + bytes(40), 0),
            disk=lambda: call(251, 30, 1, target, 3 << 13),
            disk_of_user=lambda: call(251, 30, 3, os.getuid(), 3 << 13),
            limit=lambda: resource.prlimit(target, resource.RLIMIT_NOFILE, (8, 8)),
            pages=lambda: call(256, 238, target, 0, 0, 0),
            kill=lambda: os.kill(target, 0),
            memory_killer=lambda: write(f'/proc/{{target}}/oom_score_adj'),
            name=lambda: write(f'/proc/{{target}}/comm'),
            slack=lambda: write(f'/proc/{{target}}/timerslack_ns'),
            trace=lambda: call(101, 117, 0x4206, target, 0, 0),
            core_scheduling=lambda: call(157, 167, 62, 2, target, 0, 0),
            shared_memory=lambda: call(29, 194, 0, 4096, 0o1600),
            semaphores=lambda: call(64, 190, 0, 1, 0o1600),
            messages=lambda: call(68, 186, 0, 0o1600),
            queue=lambda: call(240, 180, b'q', 0o102, 0o600, 0),
            queue_removed=lambda: call(241, 181, b'q'),
            key=lambda: call(248, 217, b'user', b'k', b'x', 1, -3),
            outlive=lambda: call(157, 167, 1, 0, 0, 0, 0),
        )
    return done
"""
    judged(judge, NOTHING, program)
    assert [state(server) for server in servers(judge)] == before
    program = "import os\ndef f():\n    return [os.getpriority(0, 0), len(os.sched_getaffinity(0)), os.sched_getscheduler(0)]\n"
    judged(judge, asserts(f"assert f() == [0, {len(os.sched_getaffinity(0))}, 0]"), program)


def test_a_program_may_lower_its_own_priority(judge):
    program = "import os\ndef f():\n    os.nice(3)\n    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n    return os.nice(0)\n"
    judged(judge, asserts("assert f() == 3"), program)
    judged(judge, asserts("assert f() == 0"), "import os\ndef f():\n    return os.nice(0)\n")


ROOTS = {
    "mode": "os.chmod('..', 0)",
    "own mode": "os.mkdir('a'); os.chmod('a', 0); os.chmod('.', 0)",
    "list": "os.setxattr('..', 'system.posix_acl_default', bytes.fromhex('0200000001000000ffffffff04000000ffffffff20000000ffffffff'))",
    "attribute": "os.setxattr('..', 'user.left', b'x')",
    "times": "os.utime('..', (7, 7))",
    "next": "[os.symlink('/', f'../{int(os.path.basename(os.getcwd())) + n}') for n in range(1, 4)]",
    "moved": "os.rename('.', '../moved') if False else os.rename(os.getcwd(), os.getcwd() + 'moved')",
}


@pytest.mark.parametrize("act", ROOTS)
def test_the_scratch_folder_is_as_new(judge, act):
    """Whatever the last program did to the folder around its own."""
    judged(judge, INCREMENT, RIGHT)
    before = {server.pid for server in servers(judge)}
    program = f"import os\ndef f():\n    try:\n        {ROOTS[act]}\n    except OSError: pass\n    return []\n"
    look = """
import os, stat
def f():
    seen = os.listdir('.') + [name for name in os.listdir('..') if name != os.path.basename(os.getcwd())] + os.listxattr('..')
    modes = [stat.S_IMODE(os.stat(path).st_mode) & 0o700 for path in ('.', '..')]
    return seen + [mode for mode in modes if mode != 0o700] + [t for t in [os.stat('..').st_atime] if t == 7]
"""
    for _ in range(2):
        judged(judge, NOTHING, program)
        judged(judge, NOTHING, look)
    assert {server.pid for server in servers(judge)} == before


def test_the_name_of_a_process_is_only_a_name(judge):
    """The server reads it beside what it wants to know."""
    for name in (b"\xff\xfe", b"\nState:\tR", b"VmRSS: 9"):
        program = f"import ctypes, time\nctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)\ntime.sleep(0.2)\n" + RIGHT
        judged(judge, INCREMENT, program)


def test_programs_leave_no_descriptor_open(judge):
    def count():
        judged(judge, INCREMENT, RIGHT)
        return {server.pid: server.num_fds() for server in servers(judge)} | {0: psutil.Process().num_fds()}

    try:
        before = count()
    except psutil.AccessDenied:
        pytest.skip("only root may look at the descriptors of a server")
    programs = [RIGHT, "1 / 0", "import os; os._exit(3)", "def f(x): return open", "import os\nos.closerange(0, 99)\n" + RIGHT]
    for _ in judge.judge_many((INCREMENT, program) for program in programs * 40):
        pass
    assert count() == before


def test_emptying_copes_with_whatever_a_program_made(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(outside)
    (top / "closed").mkdir()
    (top / "closed" / "inner").mkdir()
    (top / "closed" / "inner" / "file").write_text("x")
    for number in range(300):
        (top / "closed" / str(number)).mkdir()
        (top / "closed" / str(number) / "link").symlink_to("..")
    os.mkfifo(top / "pipe")
    (top / "closed" / "inner").chmod(0)
    (top / "closed").chmod(0)
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):  # deeper than a path may be long
        os.mkdir("a" * 50, dir_fd=here)
        deeper = os.open("a" * 50, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    top.chmod(0)
    descriptors = psutil.Process().num_fds()
    folders.empty(str(top))
    assert psutil.Process().num_fds() == descriptors
    assert not list(top.iterdir())
    assert (outside / "kept").read_text() == "x"
    (top / "again").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        folders.empty(str(top / "again"))


# --- Nothing outlives the judge -------------------------------------------------------------------------------------------

KILLED = """
import sys, threading, time
from trl_rrtf import Judge, JudgeConfig, Problem, UnitTest
from trl_rrtf.judging import judge
judge._LAYERS_LEFT_OUT = {without!r}
problem = Problem(problem_id="p", prompt="p", tests=[UnitTest(kind="assert", code="assert f()")], entry_point="f")
program = '''
import os, time
def f():
    try:
        os.makedirs('a/b'); os.chmod('a/b', 0); os.chmod('a', 0); os.symlink('/', 'link')
    except OSError: pass
    open('running', 'w').close()
    time.sleep(60)
'''
judge = Judge(JudgeConfig(num_workers=1, timeout=60))
threading.Thread(target=lambda: judge.judge(problem, program), daemon=True).start()
while not judge._workers[0].layers: time.sleep(0.05)
time.sleep(0.5)
print(*judge._workers[0].process_ids(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("without", [(), WITHOUT_VIEW, (*WITHOUT_VIEW, "seccomp", "landlock")])
def test_what_a_killed_judge_leaves_is_removed_by_the_next(tmp_path, monkeypatch, without):
    tmp_path.chmod(0o755)
    others = [tmp_path / "judge-trl-rrtf-other", tmp_path / "judge-of-somebody"]
    for other in others:
        other.mkdir()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    (tmp_path / "judge-trl-rrtf-link").symlink_to(kept)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    code = KILLED.format(without=without)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as process:
        workers = [psutil.Process(int(number)) for number in process.stdout.readline().split()]
        everything = [*workers, *(child for worker in workers for child in worker.children(recursive=True))]
        assert len(everything) >= 3
        (left,) = set(tmp_path.glob("judge-trl-rrtf-????????"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        folder_module.remove_abandoned()
        assert left.exists()  # its owner lives
        process.kill()
    _, alive = psutil.wait_procs(everything, timeout=10)
    assert not alive
    assert left.exists()
    with Judge(JudgeConfig(num_workers=1)) as judge:
        assert judge.judge(INCREMENT, RIGHT).outcome is Outcome.PASSED
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "judge-of-somebody",
        "judge-trl-rrtf-link",
        others[0].name,
        "kept",
    ]
    assert (kept / "file").exists()
    # A folder that was never locked, if no judge can be about to lock it.
    os.utime(others[0], (1, 1))
    others[0].chmod(0)
    folder_module.remove_abandoned()
    assert not others[0].exists()


def test_a_candidate_cannot_outlive_its_server(monkeypatch):
    monkeypatch.setattr("trl_rrtf.judging.judge._LAYERS_LEFT_OUT", WITHOUT_VIEW)
    program = "import ctypes, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\ntime.sleep(30)\n"
    with Judge(JudgeConfig(num_workers=1, timeout=30, retries=0)) as judge:
        needs(judge, "seccomp")
        thread = threading.Thread(target=judge.judge, args=(INCREMENT, program))
        thread.start()
        time.sleep(0.5)
        (server,) = servers(judge)
        children = server.children()
        server.kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert children
        assert not alive
        thread.join()
