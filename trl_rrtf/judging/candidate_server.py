"""A worker that forks one contained process per candidate. It never sees a program, a test or a result.

Started by the judge with its settings on standard input. Contains itself first (namespaces must come before threads), loads the
modules that programs import most, seals itself, reports its layers, then waits for runs: each comes with one end of a socket
pair, whose other end the checker keeps.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import select
import signal
import socket
import sys
import time
import warnings
from typing import Any

import msgpack

from trl_rrtf.judging import candidate
from trl_rrtf.judging.channel import Channel, ChannelClosedError
from trl_rrtf.judging.containment import Containment, SystemCallFilter, end_with_parent, limit_process

RUN, STOP, LOST = b"r", b"s", b"l"
"""What the checker says: run a candidate (with a socket), end it, find out why it ended. Each run gets one `STOP` or `LOST`."""

_MOST_THREADS = 64
_CONNECTION, _LAST_DESCRIPTOR = 3, 64
_DYING_SECONDS = 0.2
"""How long a process that has closed its socket may take to end by itself."""


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
    for name in settings["modules"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    containment.seal(scratch, settings["worker_filter"])
    warnings.simplefilter("ignore")
    sys.stdout.buffer.write(msgpack.packb(containment.layers))
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
        self._filter = SystemCallFilter(settings["candidate_filter"]) if containment.has("seccomp") else None
        self._owns_namespace = containment.has("namespaces")
        self._threads = _MOST_THREADS if containment.counts_processes else None
        self._scratch = scratch
        self._runs = 0
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
            report = self._run(process)
            with contextlib.suppress(ChannelClosedError):
                answers.send("ended", *report)

    def _fork(self) -> tuple[int, socket.socket]:
        """Forks the next candidate's process; returns it and the socket over which it gets its connection to the checker."""
        self._runs += 1
        os.mkdir(self._folder())
        ours, theirs = socket.socketpair()
        process = os.fork()
        if process == 0:
            self._become_candidate(theirs)
        theirs.close()
        return process, ours

    def _folder(self) -> str:
        return f"{self._scratch}/{self._runs}"

    def _run(self, process: int) -> tuple[int, bool, float, float]:
        """Wait status (or -1 if it had to be killed), whether the deadline came, processor seconds, seconds spent waiting."""
        message = self._wait_for_end(time.monotonic() + self._settings["timeout"])
        timed_out = message is None
        waited = _seconds_without_processor(process) if timed_out else 0.0
        ended = message == LOST and self._ended_by_itself(process)
        self._kill(process)
        _, status, usage = os.wait4(process, 0)
        self._reap()
        self._clean_up()
        return status if ended else -1, timed_out, usage.ru_utime + usage.ru_stime, waited

    def _clean_up(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._folder())  # most programs leave nothing
        if os.listdir(self._scratch):
            clear(self._scratch)

    def _become_candidate(self, start: socket.socket) -> None:
        """Contains this process, waits for its connection, and runs the candidate that comes over it."""
        try:
            os.setsid()
            end_with_parent()
            self._control.close()
            os.chdir(self._folder())
            os.environ["HOME"] = os.environ["TMPDIR"] = self._folder()
            settings = self._settings
            limit_process(settings["memory_bytes"], settings["file_bytes"], math.ceil(settings["timeout"]) + 1, self._threads)
            if self._filter:
                self._filter.put_on()
            _, (descriptor,), *_ = socket.recv_fds(start, 1, 1)
            os.dup2(descriptor, _CONNECTION)
            os.closerange(_CONNECTION + 1, _LAST_DESCRIPTOR)
            candidate.run(socket.socket(fileno=_CONNECTION))
        finally:
            os._exit(1)

    def _wait_for_end(self, deadline: float) -> bytes | None:
        """What the checker says at the end of the run (nothing if it is gone itself); None if the deadline comes first."""
        readable, _, _ = select.select([self._control], [], [], max(0.0, deadline - time.monotonic()))
        return self._control.recv(1) if readable else None

    def _ended_by_itself(self, process: int) -> bool:
        """Whether the process ends without being killed; one that closed its socket gets a moment for it."""
        deadline = time.monotonic() + _DYING_SECONDS
        while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
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


def _seconds_without_processor(process: int) -> float:
    """How long a process was ready to run while others had the processor: a busy machine makes false time-outs."""
    try:
        with open(f"/proc/{process}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def clear(scratch: str) -> None:
    """Empties a folder, whatever a program has made in it: no recursion, no links followed, no permission needed.

    Folders inside are moved up before they are emptied, so no path becomes long.
    """
    waiting = [scratch]
    while waiting:
        folder = waiting.pop()
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    target = f"{scratch}/{os.urandom(12).hex()}"  # a name that no program could have taken
                    os.rename(entry.path, target)
                    waiting.append(target)
                else:
                    os.unlink(entry.path)
        if folder != scratch:
            os.rmdir(folder)


if __name__ == "__main__":
    main()
