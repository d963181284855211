"""Programs that try what a candidate must not do. Judged like a candidate's: each function tells whether the act was refused.

Sent as text into a candidate's process, see `isolation.py`; never imported by the package.
"""

import contextlib
import ctypes
import functools
import mmap
import os
import socket
from collections.abc import Callable


def memory(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """More memory than allowed, and memory that no limit counts."""
    try:
        mmap.mmap(-1, memory_bytes + 1)
        return False
    except (OSError, MemoryError, ValueError):
        pass
    return not _works(lambda: os.close(os.memfd_create("probe")))


def processes(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """A process that outlives the candidate."""
    try:
        child = os.fork()
    except OSError:
        return True
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return False


def network(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """Datagrams to the loopback device, and an abstract socket of the process that judges."""

    def datagram() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.connect(("127.0.0.1", 9))

    def abstract() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
            end.connect(f"\0trl-rrtf-probe-{judge}")

    return not _works(datagram) and not _works(abstract)


def files(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """Writing where the user may write."""

    def write() -> None:
        with open(os.path.join(folder, "written"), "w") as file:
            file.write("x")

    return not _works(write)


def disk(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """Filling the scratch folder without end."""
    try:
        for number in range(40):
            with open(f"fill-{number}", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, file_bytes)
    except OSError:
        return True
    return False


def secrets(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """The user's files, environment, and the memory of the process that judges."""

    def read(path: str) -> None:
        with open(path, "rb") as file:
            file.read(1)

    paths = (os.path.join(folder, "secret"), f"/proc/{judge}/environ", f"/proc/{judge}/mem", f"/proc/{os.getppid()}/mem")
    return "TRL_RRTF_PROBE" not in os.environ and not any(_works(functools.partial(read, path)) for path in paths)


def signals(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """Signals to the process that judges and to the one that forked this."""
    return not any(_works(functools.partial(os.kill, target, 0)) for target in (judge, os.getppid()))


def kernel(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """Tracing, new namespaces, another personality."""
    library = ctypes.CDLL(None)
    attach, new_user_namespace, no_randomisation = 16, 0x10000000, 0x0040000
    return bool(
        library.ptrace(attach, os.getppid(), 0, 0) != 0
        and library.unshare(new_user_namespace) != 0
        and library.personality(no_randomisation) == -1
    )


def _works(act: Callable[[], object]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        act()
        return True
    return False
