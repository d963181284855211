"""The system calls that a candidate's process may not make, as filters that libseccomp compiles (through `pyseccomp`).

Compiled once, in the process that starts the workers, and handed to them as bytes: a worker then needs neither the library nor
the milliseconds. Two filters add up: one for the worker and all that it forks, one for the candidate alone.
"""

from __future__ import annotations

import errno
import functools
import platform
import socket
import tempfile
from dataclasses import dataclass

_NETWORK = "socket bind connect listen accept accept4"
_OTHER_PROCESSES = (
    "ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_getfd pidfd_send_signal process_madvise process_mrelease "
    "move_pages migrate_pages"
)
_KERNEL = (
    "io_uring_setup io_uring_enter io_uring_register bpf userfaultfd perf_event_open keyctl add_key request_key "
    "kexec_load kexec_file_load init_module finit_module delete_module open_by_handle_at name_to_handle_at "
    "fanotify_init lookup_dcookie syslog acct quotactl quotactl_fd swapon swapoff reboot iopl ioperm modify_ldt vhangup "
    "nfsservctl settimeofday clock_settime clock_adjtime adjtimex stime sethostname setdomainname personality"
)
_MOUNTS = (
    "mount umount umount2 pivot_root chroot fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr unshare setns"
)
_MEMORY_WITHOUT_LIMIT = "memfd_create memfd_secret"
_SHARED_BY_NAME = (  # with other processes of the user, and left there when a program ends
    "shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semctl "
    "mq_open mq_unlink mq_notify mq_timedsend mq_timedreceive mq_getsetattr"
)
_WATCHING_FILES = "inotify_init inotify_init1 inotify_add_watch"
_FOR_EVERYONE = " ".join(
    (_NETWORK, _OTHER_PROCESSES, _KERNEL, _MOUNTS, _MEMORY_WITHOUT_LIMIT, _SHARED_BY_NAME, _WATCHING_FILES)
)
_OF_A_PROCESS = "sched_setscheduler sched_setparam sched_setattr sched_setaffinity prlimit64"
"""Their first argument is the process, 0 for the caller."""

_FIRST_UNKNOWN, _LAST_UNKNOWN = 457, 511
"""Numbers of system calls that came after this list, on every architecture: the answer is that of a kernel without them."""

_DESCRIPTOR_COMMANDS = {
    "fcntl": (8, 10, 15, 1024, 1026),  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
    "ioctl": (0x5452, 0x8901, 0x8902, 0x5412),  # FIOASYNC, FIOSETOWN, SIOCSPGRP, TIOCSTI
}
"""What lets the kernel send signals to other processes, or put words into a terminal."""

_PROCESSES = "fork vfork execve execveat"
_SIGNALS = "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo"
_PATHS_WITHOUT_LANDLOCK = (
    "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat "
    "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr chdir fchdir truncate"
)
"""What Landlock allows everywhere (`truncate` in its first versions): refused where no file view keeps the user's files away.

A program that only wants this for files of its own is refused too: an answer without the act would be a lie.
"""

_THREADS_ONLY = 0x10000
"""CLONE_THREAD."""

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG: a candidate must not outlive its worker."""


@dataclass(frozen=True)
class SystemCallFilters:
    """Programs for the kernel's filter machine, eight bytes an instruction.

    Attributes:
        worker: Refuses network, other processes, mounts, kernel interfaces and memory that no limit counts.
        candidate: Refuses new processes (threads are allowed) and signals.
        candidate_without_view: The same for a candidate that has no file view: refuses to change what it cannot open, too.
    """

    worker: bytes
    candidate: bytes
    candidate_without_view: bytes


@functools.cache
def system_call_filters() -> SystemCallFilters | str:
    """The filters, or the reason why there are none."""
    if platform.system() != "Linux":
        return "not on Linux"
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        return f"pyseccomp does not load ({error})"

    refuse, unknown = pyseccomp.ERRNO(errno.EPERM), pyseccomp.ERRNO(errno.ENOSYS)

    def equals(argument: int, value: int) -> object:
        """The kernel reads 32 bits of these arguments, so the others must not make another value of it."""
        return pyseccomp.Arg(argument, pyseccomp.MASKED_EQ, 0xFFFFFFFF, value)

    worker = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    _add(worker, refuse, _FOR_EVERYONE)
    for number in range(_FIRST_UNKNOWN, _LAST_UNKNOWN + 1):
        worker.add_rule(unknown, number)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):  # a pair of datagram sockets can send to any other socket of its family
        worker.add_rule(refuse, "socketpair", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xF, kind))
    _add(worker, refuse, _OF_A_PROCESS, pyseccomp.Arg(0, pyseccomp.NE, 0))
    for name, oneself in (("setpriority", 0), ("ioprio_set", 1)):  # of a process, not of a group or a user; and of the caller
        _add(worker, refuse, name, pyseccomp.Arg(0, pyseccomp.NE, oneself))
        _add(worker, refuse, name, pyseccomp.Arg(1, pyseccomp.NE, 0))
    for name, commands in _DESCRIPTOR_COMMANDS.items():
        for command in commands:
            worker.add_rule(refuse, name, equals(1, command))

    def candidate(more: str) -> bytes:
        rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        _add(rules, refuse, f"{_PROCESSES} {_SIGNALS} {more}")
        # The C library falls back to `clone`, whose flags can be looked at.
        rules.add_rule(unknown, "clone3")
        rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _THREADS_ONLY, 0))
        rules.add_rule(refuse, "prctl", equals(0, _PARENT_DEATH_SIGNAL))
        return _exported(rules)

    return SystemCallFilters(_exported(worker), candidate(""), candidate(_PATHS_WITHOUT_LANDLOCK))


def _add(rules: object, action: object, names: str, *arguments: object) -> None:
    for name in names.split():
        try:
            rules.add_rule(action, name, *arguments)  # type: ignore[attr-defined]
        except (ValueError, OSError):  # a call that this architecture or this libseccomp does not know
            continue


def _exported(rules: object) -> bytes:
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)  # type: ignore[attr-defined]
        file.seek(0)
        return file.read()
