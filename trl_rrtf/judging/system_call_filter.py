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
_OTHER_PROCESSES = "ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_getfd pidfd_send_signal process_madvise"
_KERNEL = (
    "io_uring_setup io_uring_enter io_uring_register bpf userfaultfd perf_event_open keyctl add_key request_key "
    "kexec_load kexec_file_load init_module finit_module delete_module open_by_handle_at name_to_handle_at "
    "fanotify_init lookup_dcookie syslog acct quotactl swapon swapoff reboot iopl ioperm modify_ldt vhangup nfsservctl "
    "settimeofday clock_settime clock_adjtime adjtimex stime sethostname setdomainname personality"
)
_MOUNTS = (
    "mount umount umount2 pivot_root chroot fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr unshare setns"
)
_MEMORY_WITHOUT_LIMIT = "memfd_create memfd_secret shmget shmat shmctl msgget msgsnd semget mq_open"
_FOR_EVERYONE = " ".join((_NETWORK, _OTHER_PROCESSES, _KERNEL, _MOUNTS, _MEMORY_WITHOUT_LIMIT))
_PROCESSES = "fork vfork execve execveat"
_SIGNALS = "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo"
_THREADS_ONLY = 0x10000
"""CLONE_THREAD."""


@dataclass(frozen=True)
class SystemCallFilters:
    """Programs for the kernel's filter machine, eight bytes an instruction.

    Attributes:
        worker: Refuses network, other processes, mounts, kernel interfaces and memory that no limit counts.
        candidate: Refuses new processes (threads are allowed), signals and limits of other processes.
    """

    worker: bytes
    candidate: bytes


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
    worker = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    _add(worker, refuse, _FOR_EVERYONE)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):  # a pair of datagram sockets can send to any other socket of its family
        worker.add_rule(refuse, "socketpair", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xF, kind))
    candidate = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    _add(candidate, refuse, f"{_PROCESSES} {_SIGNALS}")
    # The C library falls back to `clone`, whose flags can be looked at.
    candidate.add_rule(unknown, "clone3")
    candidate.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _THREADS_ONLY, 0))
    candidate.add_rule(refuse, "prlimit64", pyseccomp.Arg(0, pyseccomp.NE, 0))
    return SystemCallFilters(_exported(worker), _exported(candidate))


def _add(rules: object, action: object, names: str) -> None:
    for name in names.split():
        try:
            rules.add_rule(action, name)  # type: ignore[attr-defined]
        except (ValueError, OSError):  # a call that this architecture or this libseccomp does not know
            continue


def _exported(rules: object) -> bytes:
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)  # type: ignore[attr-defined]
        file.seek(0)
        return file.read()
