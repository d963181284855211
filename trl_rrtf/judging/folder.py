"""The folder in the temporary folder that belongs to a worker, and what is left of those whose owners were killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time

from trl_rrtf.judging.wire.folders import empty, entered

_PREFIX = "judge-trl-rrtf-"
_LOCK = "owner"
"""A file that the owner keeps locked. The kernel unlocks it however the owner ends, also in another container."""

_UNLOCKED_SECONDS = 600
"""So old a folder without that file is, if its owner was killed before it made one, and not still about to."""


_ATTEMPTS, _SECONDS_BETWEEN_ATTEMPTS = 20, 0.05


class OwnFolder:
    """A folder for as long as this process lives; before it is made, those are removed whose owners live no more.

    Attributes:
        path: Everyone may enter it, only its owner write to it.
    """

    def __init__(self) -> None:
        remove_abandoned()
        self._lock = -1
        while self._lock < 0:
            self.path = tempfile.mkdtemp(prefix=_PREFIX)
            # Somebody who removes abandoned folders can be faster than the lock.
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                self._lock = _locked(self.path, os.O_CREAT | os.O_EXCL)
        os.chmod(self.path, 0o711)  # a worker of root becomes another user

    def remove(self) -> None:
        """Removes it, with whatever programs have left in it."""
        if self._lock < 0:
            return
        for _ in range(_ATTEMPTS):  # a candidate that was killed just now may still write to it
            _remove(self.path)
            if not os.path.lexists(self.path):
                break
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
        os.close(self._lock)
        self._lock = -1


def remove_abandoned() -> None:
    """Removes the folders of this user whose owners are gone. What is locked, a link, or of another user is not touched."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    status = os.lstat(path)
    if status.st_uid != os.geteuid():
        return
    os.close(entered(path))  # whatever its mode is
    try:
        lock = _locked(path)
    except FileNotFoundError:
        if time.time() - status.st_mtime > _UNLOCKED_SECONDS:
            _remove(path)
    else:
        _remove(path)
        os.close(lock)


def _locked(folder: str, flags: int = 0) -> int:
    """A descriptor that holds the lock of a folder.

    Raises:
        BlockingIOError: Somebody else holds it.
        FileNotFoundError: There is none.
        OSError: It cannot be opened or locked.
    """
    path = f"{folder}/{_LOCK}"
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):  # removed in the meantime, and made again
            raise FileNotFoundError(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        empty(path)
        os.rmdir(path)
