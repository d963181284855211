"""The checker's connection to a candidate server."""

from __future__ import annotations

import math
import os
import resource
import signal
import socket

from trl_rrtf.judging.checker.recorder import JudgeFailedError
from trl_rrtf.judging.wire.channel import Channel, ChannelClosedError
from trl_rrtf.judging.wire.protocol import LOST, RUN, STOP, Ended

_OWN_SECONDS = 1.0
"""Processor time that the checker gets for a process of a candidate, beyond the candidate's time."""
_STARVED_FRACTION = 0.25
"""A time-out of which the checker itself spent so much waiting for a processor says nothing about the candidate."""


class Runner:
    """Starts and ends candidates.

    Args:
        end: Socket to the server.
        timeout: Seconds that a candidate gets; for messages.
        memory_bytes: Memory that it gets; for messages.
    """

    def __init__(self, end: socket.socket, timeout: float, memory_bytes: int) -> None:
        self._socket = end
        self._control = Channel(end, exact=True)
        self._timeout = timeout
        self._memory_bytes = memory_bytes
        self._running = False
        self._unread = False
        self._waited_before = 0.0

    def start(self, *, exact: bool = False) -> Channel:
        """Starts a candidate's process; returns the channel to it.

        Raises:
            JudgeFailedError: The server is gone.
        """
        self.settle()
        _allow_processor_time(self._timeout + _OWN_SECONDS)
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._socket, [RUN], [theirs.fileno()])
        except OSError as error:
            raise JudgeFailedError(f"the candidate server is gone ({error})") from None
        finally:
            theirs.close()
        self._running = True
        self._waited_before = _seconds_without_processor()
        return Channel(ours, exact=exact)

    def stop(self) -> None:
        """Ends the candidate without waiting for that."""
        self._tell(STOP)
        self._unread = True

    def stop_if_running(self) -> None:
        """The same, if it has not ended."""
        if self._running:
            self.stop()

    def settle(self) -> None:
        """Waits until the last candidate is gone."""
        self.stop_if_running()
        if self._unread:
            self._unread = False
            self._end()

    def why_lost(self, reason: str) -> tuple[str, int]:
        """Why a candidate was lost, and its exit status (or -1).

        Args:
            reason: What the checker saw of it.

        Raises:
            JudgeFailedError: Somebody else killed it, or the machine was too busy to say anything.
        """
        self._tell(LOST)
        ended = self._end()
        # While the candidate ran, this process may have waited for it and not for others.
        kept_waiting = _seconds_without_processor() - self._waited_before - ended.seconds
        if ended.starved or (ended.limit == "time" and kept_waiting > _STARVED_FRACTION * self._timeout):
            raise JudgeFailedError(
                f"the machine was too busy: the program got too little of it in {self._timeout:g} s", for_good=True
            )
        if ended.limit == "memory":
            return f"memory limit of {self._memory_bytes // 2**20} MiB", -1
        if ended.limit:
            return f"time limit of {self._timeout:g} s", -1
        if ended.status < 0:
            return f"the program broke the connection to its tests: {reason}", -1
        if os.WIFSIGNALED(ended.status):
            number = os.WTERMSIG(ended.status)
            if number == signal.SIGKILL:
                raise JudgeFailedError("killed by SIGKILL", candidate_killed=True)
            if number == signal.SIGXCPU:
                return f"time limit of {self._timeout:g} s of the processor", -1
            return f"killed by {signal.Signals(number).name}", -1
        code = os.waitstatus_to_exitcode(ended.status)
        return f"the program ended early (exit status {code})", code

    def _tell(self, what: bytes) -> None:
        self._running = False
        try:
            self._socket.sendall(what)
        except OSError as error:
            raise JudgeFailedError(f"the candidate server is gone ({error})") from None

    def _end(self) -> Ended:
        try:
            ended: Ended = self._control.receive(Ended)
        except ChannelClosedError as error:
            raise JudgeFailedError(f"the candidate server is gone ({error})") from None
        return ended


def _allow_processor_time(seconds: float) -> None:
    """Lets the kernel end this process when a comparison takes more of its time, also where no Python code runs."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds), most))


def _seconds_without_processor() -> float:
    """How long this process was ready to run while others had the processor."""
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
