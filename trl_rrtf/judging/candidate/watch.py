"""What a candidate's process uses while it runs: its memory, and the time for which others had its processor."""

from __future__ import annotations

import itertools
import os
import time
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")
MOST_THREADS = 64
"""That a candidate may have."""


class _Thread(NamedTuple):
    """What is known of a thread: for how many seconds it ran and waited, how often it slept, whether it is ready to run."""

    ran: float
    waited: float
    sleeps: str
    ready: bool


class Watch:
    """Looks at a process from outside, through `/proc`; one that cannot be seen uses nothing.

    Args:
        process: Its number.
    """

    def __init__(self, process: int) -> None:
        self._folder = f"/proc/{process}"
        self._threads: dict[str, _Thread] = {}
        self._started = self._looked = time.monotonic()
        self.waited = 0.0

    def sees(self) -> bool:
        """Whether the system shows the process."""
        return bool(self._read("statm"))

    def uses_more_than(self, memory_bytes: int) -> bool:
        """Whether the process has more memory in use: reserved address space and the pages of files do not count."""
        pages = self._read("statm").split()
        if len(pages) < 2 or int(pages[1]) * _PAGE <= memory_bytes:
            return False
        status = self._fields("status")
        used = sum(int(status.get(name, "0").split()[0]) for name in ("RssAnon", "RssShmem", "VmSwap"))
        return used * 1024 > memory_bytes

    def look(self) -> None:
        """Brings `waited` up to date: seconds for which a thread was ready to run and others had the processor.

        Between two looks the longest wait of one thread counts, not the sum: threads that wait for each other make no time.
        """
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        try:
            threads = list(itertools.islice(os.listdir(f"{self._folder}/task"), MOST_THREADS))
        except OSError:
            return
        longest = max((self._waited_by(thread, passed) for thread in threads), default=0.0)
        self.waited = min(self.waited + longest, now - self._started)

    def _waited_by(self, number: str, passed: float) -> float:
        """How long a thread has waited since the last look.

        The kernel counts a wait when it is over, which can be late: a thread that was ready all the time has waited while it
        did not run.
        """
        times, status = self._read(f"task/{number}/schedstat").split(), self._fields(f"task/{number}/status")
        if len(times) < 2 or not status:
            return 0.0
        ran, waited = int(times[0]) / 1e9, int(times[1]) / 1e9
        sleeps, ready = status.get("voluntary_ctxt_switches", ""), status.get("State", "").startswith("R")
        before = self._threads.get(number)
        if before is not None:
            always_ready = ready and before.ready and sleeps == before.sleeps
            waited = max(waited, before.waited + (passed - (ran - before.ran) if always_ready else 0.0))
        self._threads[number] = _Thread(ran, waited, sleeps, ready)
        return waited - (before.waited if before is not None else 0.0)

    def _fields(self, name: str) -> dict[str, str]:
        pairs = (line.partition(":") for line in self._read(name).splitlines())
        return {key: value.strip() for key, _, value in pairs}

    def _read(self, name: str) -> str:
        try:
            with open(f"{self._folder}/{name}", encoding="latin-1") as file:  # a program chooses its name, of any bytes
                return file.read()
        except OSError:
            return ""
