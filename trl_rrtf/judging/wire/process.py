"""What a process of the judge does to itself when it starts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_C = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def end_with_parent() -> None:
    """Lets the kernel kill this process when its parent ends."""
    _set(_PR_SET_PDEATHSIG, 9)


def hide_memory() -> None:
    """Keeps other processes of the same user from reading or tracing this one."""
    _set(_PR_SET_DUMPABLE, 0)


def _set(option: int, value: int) -> None:
    if _C.prctl(option, ctypes.c_ulong(value), 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fix_seeds() -> None:
    """The same random numbers each time, for the generators that are loaded."""
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(Exception):
                module.seed(0)
