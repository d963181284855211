"""A worker that forks one contained process per candidate. It never sees a program, a test or a result.

Started by the judge with its settings on standard input. Contains itself first (namespaces must come before threads), loads the
modules that programs import most, seals itself, reports its layers, then waits for runs: each comes with one end of a socket
pair, whose other end the checker keeps.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import gc
import importlib
import math
import os
import resource
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import msgpack

from trl_rrtf.judging.candidate import program
from trl_rrtf.judging.candidate.containment import Containment, SystemCallFilter, limit_process
from trl_rrtf.judging.candidate.watch import MOST_THREADS, Watch
from trl_rrtf.judging.wire.channel import Channel, ChannelClosedError
from trl_rrtf.judging.wire.folders import empty
from trl_rrtf.judging.wire.process import end_with_parent
from trl_rrtf.judging.wire.protocol import LOST, RUN, Ended, ServerReady

_CONNECTION, _LAST_DESCRIPTOR = 3, 64
_DYING_SECONDS = 0.2
"""How long a process that has closed its socket may take to end by itself."""

_RESERVED_BYTES = 2**30
"""Address space for the stacks of threads, beyond the limit of memory: what of it is used counts as memory."""

_LOOK_SECONDS = 0.01
"""How often a candidate's memory is looked at. Most programs end before the first time."""

_LOOK_AT_THREADS_SECONDS = 0.05
_LAST_LOOK_SECONDS = 0.02
"""How long a candidate whose time is over must not have been waiting for a processor: a wait that lasts is hard to see."""

_MOST_PROCESSORS = 1.5
"""How many processors a program can use all the time, by threads, before the limit of processor time ends it.

The kernel counts this by sampling, on a busy machine wrongly by some tenths: a program without threads must not come near.
"""


def main() -> None:
    """Runs until the judge closes the socket."""
    settings: dict[str, Any] = msgpack.unpackb(sys.stdin.buffer.read())
    containment = Containment()
    scratch = containment.put_on(settings["folder"], settings["scratch_bytes"], settings["without"], settings["bubblewrap"])
    environment = {"HOME": scratch, "TMPDIR": scratch, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    for name in list(os.environ):
        if name not in ("PYTHONHASHSEED", "OPENBLAS_NUM_THREADS"):
            del os.environ[name]
    os.environ.update(environment)
    _give_room_for_stacks()
    for name in settings["modules"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    containment.seal(scratch, settings["worker_filter"])
    warnings.simplefilter("ignore")
    sys.stdout.buffer.write(msgpack.packb([ServerReady.__name__, containment.layers]))
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    compile("0", "<warm-up>", "exec")  # the first call builds Python's syntax tree types, for milliseconds
    gc.collect()
    gc.freeze()
    _Server(settings, containment, scratch).serve()


class _Server:
    """Forks, waits, kills, cleans up; one candidate at a time."""

    def __init__(self, settings: dict[str, Any], containment: Containment, scratch: str) -> None:
        self._settings = settings
        instructions = settings["candidate_filter" if containment.has("file view") else "candidate_filter_without_view"]
        self._filter = SystemCallFilter(instructions) if containment.has("seccomp") else None
        self._rules = containment.candidate_rules
        self._owns_namespace = containment.has("namespaces")
        self._threads = MOST_THREADS if containment.counts_processes else None
        self._scratch = scratch
        self._runs = 0
        self._reserved_bytes = _RESERVED_BYTES if _sees_its_children() else 0
        self._cpu_seconds = math.ceil(_MOST_PROCESSORS * settings["timeout"]) + 1
        self._control = socket.socket(fileno=settings["descriptor"])

    def serve(self) -> None:
        """Runs candidates until the judge is gone."""
        answers = Channel(self._control)
        while True:
            # Forked before it is needed: it gets ready while the checker and the judge finish with the last one.
            process, start = self._fork()
            message = b""
            while message != RUN:  # an end may still come after the deadline has ended its run
                message, descriptors, *_ = socket.recv_fds(self._control, 1, 1)
                if not message:
                    return
            with start, contextlib.suppress(BrokenPipeError):  # it died; the checker will find its socket closed
                socket.send_fds(start, [RUN], descriptors)
            os.close(descriptors[0])
            ended = self._run(process)
            with contextlib.suppress(ChannelClosedError):
                answers.send(ended)

    def _fork(self) -> tuple[int, socket.socket]:
        """Forks the next candidate's process; returns it and the socket over which it gets its connection to the checker."""
        self._runs += 1
        folder = self._folder()
        os.mkdir(folder)
        # Before the fork: each memory page that the child changes costs it more than the call.
        os.chdir(folder)
        os.environ["HOME"] = os.environ["TMPDIR"] = folder
        ours, theirs = socket.socketpair()
        server = os.getpid()
        process = os.fork()
        if process == 0:
            ours.close()
            self._become_candidate(theirs, server)
        theirs.close()
        return process, ours

    def _folder(self) -> str:
        return f"{self._scratch}/{self._runs}"

    def _run(self, process: int) -> Ended:
        """Waits for the end of a candidate, or ends it."""
        watch = Watch(process)
        message, limit, starved = self._wait_for_end(watch)
        ended = message == LOST and self._ended_by_itself(process, watch)
        self._kill(process)
        _, status, used = os.wait4(process, 0)
        self._reap()
        self._clean_up()
        if ended and self._ended_for_processor_time(status, used):
            limit = "time"
        return Ended(status if ended and not limit else -1, limit, starved, used.ru_utime + used.ru_stime)

    def _ended_for_processor_time(self, status: int, used: resource.struct_rusage) -> bool:
        """Whether the kernel ended it for that: by SIGXCPU, or by SIGKILL where it catches that (as others may send)."""
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        much = used.ru_utime + used.ru_stime > self._cpu_seconds / 2
        return number == signal.SIGXCPU or (number == signal.SIGKILL and much)

    def _clean_up(self) -> None:
        """Leaves the next candidate nothing, whatever this one did to the folder around its own."""
        os.chmod(self._scratch, 0o700)
        with contextlib.suppress(OSError):
            os.rmdir(self._folder())  # most programs leave nothing
        if os.listdir(self._scratch):
            empty(self._scratch)
        with contextlib.suppress(OSError):  # a file system may have none
            for name in os.listxattr(self._scratch):
                os.removexattr(self._scratch, name)
        os.utime(self._scratch, (0, 0))

    def _become_candidate(self, start: socket.socket, server: int) -> None:
        """Contains this process, waits for its connection, and runs the candidate that comes over it."""
        try:
            os.setsid()
            end_with_parent()
            if os.getppid() != server:  # it was killed before this process asked to end with it
                os._exit(1)
            self._control.close()
            settings = self._settings
            memory = settings["memory_bytes"]
            limit_process(memory, self._reserved_bytes, settings["file_bytes"], self._cpu_seconds, self._threads)
            if self._rules:
                self._rules.put_on()
            if self._filter:
                self._filter.put_on()
            _, (descriptor,), *_ = socket.recv_fds(start, 1, 1)
            os.dup2(descriptor, _CONNECTION)
            os.closerange(_CONNECTION + 1, _LAST_DESCRIPTOR)
            program.run(socket.socket(fileno=_CONNECTION))
        finally:
            os._exit(1)

    def _wait_for_end(self, watch: Watch) -> tuple[bytes | None, str, bool]:
        """Waits for the end of the run, or for a limit.

        The deadline moves by the time for which the machine gave the candidate no processor, but not for ever.

        Returns:
            What the checker says at the end (nothing if it is gone itself), or None; the limit; whether the machine was so busy
            that nothing can be said.
        """
        now = time.monotonic()
        deadline, last = now + self._settings["timeout"], now + self._settings["longest_seconds"]
        next_look, over = now + _LOOK_AT_THREADS_SECONDS, False
        while True:
            wake = min(now + _LOOK_SECONDS, next_look if over else deadline + watch.waited, last)
            readable, _, _ = select.select([self._control], [], [], max(0.0, wake - now))
            if readable:
                return self._control.recv(1), "", False
            now = time.monotonic()
            if watch.uses_more_than(self._settings["memory_bytes"]):
                return None, "memory", False
            if now >= last:
                return None, "time", True
            if now >= next_look or (now >= deadline + watch.waited and not over):
                watch.look()
                next_look = now + _LOOK_AT_THREADS_SECONDS
                late = now >= deadline + watch.waited
                if late and over:
                    return None, "time", False
                over = late
                if over:
                    next_look = now + _LAST_LOOK_SECONDS

    def _ended_by_itself(self, process: int, watch: Watch) -> bool:
        """Whether the process ends without being killed; one that closed its socket gets a moment for it."""
        watch.look()
        deadline = time.monotonic() + _DYING_SECONDS - watch.waited
        while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            watch.look()
            if time.monotonic() > deadline + watch.waited:
                return False
            time.sleep(0.001)
        return True

    def _kill(self, process: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        if self._filter:
            return  # it could not fork
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._owns_namespace:
                os.kill(-1, signal.SIGKILL)
            else:
                os.killpg(process, signal.SIGKILL)

    def _reap(self) -> None:
        """Ends what the candidate left behind, which has become this process's children."""
        if self._filter:
            return
        while True:
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def _sees_its_children() -> bool:
    """Whether `/proc` shows what the processes that this one forks use: on some systems it hides them."""
    process = os.fork()
    if process == 0:
        signal.pause()
        os._exit(0)
    try:
        return Watch(process).sees()
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _give_room_for_stacks() -> None:
    """Lets a process whose program starts threads have all the address space that it may reserve.

    A stack counts as address space before it is used. Without threads the limit of memory is one of address space, so that
    Python's own `MemoryError` tells a program of it; from the first thread on the server watches what is used.
    """
    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        start = getattr(_thread, name, None)
        if start is not None:
            setattr(_thread, name, _with_room(start))
            if hasattr(threading := sys.modules.get("threading"), f"_{name}"):
                setattr(threading, f"_{name}", getattr(_thread, name))


def _with_room(start: Callable[..., Any]) -> Callable[..., Any]:
    def start_with_room(*arguments: Any, **options: Any) -> Any:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return start(*arguments, **options)

    return functools.update_wrapper(start_with_room, start)


if __name__ == "__main__":
    main()
