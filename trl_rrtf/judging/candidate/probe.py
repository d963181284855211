"""Programs that try what a candidate must not do. Judged like a candidate's: each function tells whether the act was refused.

Sent as text into a candidate's process, see `isolation.py`; never imported by the package.
"""

import contextlib
import ctypes
import fcntl
import functools
import mmap
import os
import resource
import socket
from collections.abc import Callable


def memory(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """More memory than allowed, and memory that no limit counts."""
    try:
        mmap.mmap(-1, memory_bytes + 1)
        return False
    except (OSError, MemoryError, ValueError):
        pass
    library = ctypes.CDLL(None)
    segment = library.shmget(0, mmap.PAGESIZE, 0o600)
    if segment != -1:
        library.shmctl(segment, 0, None)  # remove it
    return segment == -1 and not _works(lambda: os.close(os.memfd_create("probe")))


def used_memory(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """More memory in the address space that is there for stacks; holds if this never returns."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    kept = []
    try:
        while True:
            kept.append(bytearray(b"x") * 2**20)
    except MemoryError:
        return len(kept) * 2**20 <= memory_bytes


def processes(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """A process that outlives the candidate, and a candidate that outlives its worker."""
    set_parent_death_signal = 1
    if ctypes.CDLL(None).prctl(set_parent_death_signal, 0, 0, 0, 0) == 0:
        return False
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
    """Writing where the user may write, and changing what is known of a file: mode, times, owner, attributes, size."""

    def write() -> None:
        with open(os.path.join(folder, "written"), "w") as file:
            file.write("x")

    victim = os.path.join(folder, "victim")
    acts: tuple[Callable[[], object], ...] = (
        write,
        functools.partial(os.chmod, victim, 0o777),
        functools.partial(os.utime, victim, (0, 0)),
        functools.partial(os.chown, victim, os.getuid(), os.getgid()),
        functools.partial(os.setxattr, victim, "user.probe", b"x"),
        functools.partial(os.truncate, victim, 0),
        functools.partial(os.rename, victim, os.path.join(folder, "renamed")),
        functools.partial(os.chdir, folder),
    )
    return not any(map(_works, acts))


def metadata(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """Seeing that a file of the user is there, how large it is and when it changes."""
    victim = os.path.join(folder, "victim")

    def watch() -> None:
        modified = 2
        library = ctypes.CDLL(None)
        end = library.inotify_init1(os.O_CLOEXEC)
        if end == -1 or library.inotify_add_watch(end, os.fsencode(victim), modified) == -1:
            raise PermissionError

    acts: tuple[Callable[[], object], ...] = (
        functools.partial(os.stat, victim),
        functools.partial(os.listdir, folder),
        functools.partial(os.listxattr, victim),
        watch,
    )
    return not os.access(victim, os.F_OK) and not any(map(_works, acts))


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
    """Signals to the process that judges and to the one that forked this, and changes of their priority, cores and limits."""
    set_owner, set_signal, set_asynchronous, stop = 8, 10, 0x5452, 19

    def change_priority(target: int) -> None:  # to what it is
        os.setpriority(os.PRIO_PROCESS, target, os.getpriority(os.PRIO_PROCESS, target))

    def change_cores(target: int) -> None:
        os.sched_setaffinity(target, os.sched_getaffinity(target))

    def change_policy(target: int) -> None:
        os.sched_setscheduler(target, os.sched_getscheduler(target), os.sched_getparam(target))

    def limit(target: int) -> None:
        resource.prlimit(target, resource.RLIMIT_NOFILE, resource.prlimit(target, resource.RLIMIT_NOFILE))

    with contextlib.ExitStack() as stack:
        end, _ = (stack.enter_context(half) for half in socket.socketpair())
        acts: list[Callable[[], object]] = [
            functools.partial(fcntl.fcntl, end, set_signal, stop),
            functools.partial(fcntl.ioctl, end, set_asynchronous, (1).to_bytes(4, "little")),
        ]
        for target in (judge, os.getppid()):
            acts += [
                functools.partial(os.kill, target, 0),
                functools.partial(fcntl.fcntl, end, set_owner, target),
                *(functools.partial(act, target) for act in (change_priority, change_cores, change_policy, limit)),
            ]
        return not any(map(_works, acts))


def kernel(folder: str, judge: int, memory_bytes: int, file_bytes: int) -> bool:
    """Tracing, new namespaces, another personality."""
    library = ctypes.CDLL(None)
    seize, new_user_namespace, no_randomisation = 0x4206, 0x10000000, 0x0040000  # traces without stopping
    return bool(
        library.ptrace(seize, os.getppid(), 0, 0) != 0
        and library.unshare(new_user_namespace) != 0
        and library.personality(no_randomisation) == -1
    )


def _works(act: Callable[[], object]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        act()
        return True
    return False
