"""What a candidate's process uses while it runs: its memory, and the time for which others had its processor."""

from __future__ import annotations

import itertools
import os
import time

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_THREADS = 64


class Watch:
    """Looks at a process from outside, through `/proc`; one that cannot be seen uses nothing.

    Args:
        process: Its number.
    """

    def __init__(self, process: int) -> None:
        self._folder = f"/proc/{process}"
        self._delays: dict[str, int] = {}
        self._looked = time.monotonic()
        self.waited = 0.0

    def sees(self) -> bool:
        """Whether the system shows the process."""
        return bool(self._read("statm"))

    def uses_more_than(self, memory_bytes: int) -> bool:
        """Whether the process has more memory in use: reserved address space and the pages of files do not count."""
        pages = self._read("statm").split()
        if len(pages) < 2 or int(pages[1]) * _PAGE <= memory_bytes:
            return False
        used = 0
        for line in self._read("status").splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssShmem", "VmSwap"):
                used += int(value.split()[0]) * 1024
        return used > memory_bytes

    def look(self) -> None:
        """Adds to `waited` the seconds since the last look for which a thread was ready to run and others had the processor.

        The longest wait of one thread counts, not the sum: threads that wait for each other make no time.
        """
        now = time.monotonic()
        longest = 0
        try:
            threads = list(itertools.islice(os.listdir(f"{self._folder}/task"), _MOST_THREADS))
        except OSError:
            return
        for thread in threads:
            fields = self._read(f"task/{thread}/schedstat").split()
            if len(fields) > 1:
                delay = int(fields[1])
                longest = max(longest, delay - self._delays.get(thread, 0))
                self._delays[thread] = delay
        self.waited += min(longest / 1e9, now - self._looked)
        self._looked = now

    def _read(self, name: str) -> str:
        try:
            with open(f"{self._folder}/{name}") as file:
                return file.read()
        except OSError:
            return ""
