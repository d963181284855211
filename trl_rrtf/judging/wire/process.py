"""What a process of the judge does to itself when it starts."""

from __future__ import annotations

import contextlib
import ctypes
import sys

# Each candidate makes these calls. A handle that keeps no error number, and numbers that need no conversion, touch a tenth of
# the memory pages, each of which a forked process must copy first.
_PRCTL = ctypes.PyDLL(None).prctl
_PRCTL.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_FILTER_MODE = 2


def end_with_parent() -> None:
    """Lets the kernel kill this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def hide_memory() -> None:
    """Keeps other processes of the same user from reading or tracing this one."""
    _prctl(_PR_SET_DUMPABLE, 0)


def put_filter_on(address: int) -> None:
    """Puts a system call filter on, for good.

    Args:
        address: Of its `struct sock_fprog`.

    Raises:
        OSError: The kernel has no seccomp.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _FILTER_MODE, address)


def _prctl(option: int, first: int, second: int = 0) -> None:
    if _PRCTL(option, first, second, 0, 0) != 0:
        raise OSError(f"prctl({option}) was refused")


def fix_seeds() -> None:
    """The same random numbers each time, for the generators that are loaded."""
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(Exception):
                module.seed(0)
