"""Removing what programs leave behind."""

from __future__ import annotations

import os
import stat

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def empty(folder: str) -> None:
    """Removes everything in a folder, whatever a program has made in it.

    Folders are entered by descriptor, one level at a time, and their modes restored: no link is followed, no depth is too deep,
    and at most four descriptors are open.

    Args:
        folder: Its own mode is restored too.

    Raises:
        OSError: Something cannot be removed, or somebody else changes the folder meanwhile.
    """
    above: list[tuple[int, int]] = []
    here = entered(folder)
    try:
        while True:
            inner, removed = _first_that_is_not_empty(here)
            if inner is not None:
                above.append(_identity(here))
                os.close(here)
                here = inner
            elif above:
                outer = os.open("..", os.O_RDONLY | _FOLDER, dir_fd=here)
                os.close(here)
                here = outer
                if _identity(here) != above.pop():
                    raise OSError(f"{folder}: changed while it was emptied")
            elif not removed:
                return
    finally:
        os.close(here)


def _first_that_is_not_empty(folder: int) -> tuple[int | None, bool]:
    """Removes entries up to the first folder that is not empty; returns that, if any, and whether anything was removed."""
    removed = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                try:
                    os.rmdir(entry.name, dir_fd=folder)
                except OSError:
                    return entered(entry.name, folder), removed
            else:
                os.unlink(entry.name, dir_fd=folder)
            removed = True
    return None, removed


def entered(name: str, folder: int | None = None) -> int:
    """A descriptor of a folder that can be listed, whatever its mode was.

    Args:
        name: Not a link.
        folder: A descriptor of the folder that it lies in; by default it is a path.
    """
    place = os.open(name, os.O_PATH | _FOLDER, dir_fd=folder)
    try:
        if os.fstat(place).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)  # by descriptor: the name may lead elsewhere by now
        return os.open(".", os.O_RDONLY | _FOLDER, dir_fd=place)
    finally:
        os.close(place)


def _identity(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino
