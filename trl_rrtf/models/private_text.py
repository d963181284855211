"""What must not leave this machine: tokens of the Hub and paths of this machine, found in texts and rows before an upload."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError, RowError
from trl_rrtf.rows.files import iterate_rows

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")

_BEGIN = r"(?:(?<![\w.~/\\-])|(?<=file://))"
"""Before an absolute path: not the middle of a URL, of a relative path, or of `~/` and `$NAME/`."""

_ABSOLUTE = re.compile(_BEGIN + r"(?:/[\w.@+=-]+){2,}")
_HOME = re.compile(_BEGIN + r"/(?:home|Users)/(\w[\w.-]*)")
_WINDOWS_HOME = re.compile(r"(?:(?<![A-Za-z])|(?<=\\[nrtbf]))[A-Za-z]:(?:\\+|/)Users(?:\\+|/)(\w[\w.-]*)")
_NOBODY = {"user", "username", "name", "you", "public", "default", "shared"}
"""Names in examples of home folders, and those that every machine has."""

_ESCAPED_SPACE = re.compile(r"\\[nrtbf]")
_ESCAPED_CHARACTER = re.compile(r"\\u([0-9a-fA-F]{4})")

_OF_THE_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/dev", "/proc", "/sys", "/opt", "/boot", "/run", "/snap"),
    *("/var/lib", "/var/log", "/var/run", "/var/cache", "/System", "/Library", "/Applications"),
    *(sys.prefix, sys.base_prefix),
)
"""Says nothing of a user, though it is on this disk."""

_ADVICE = "write a name in the place of the path"


def own_places(*given: str | Path) -> tuple[str, ...]:
    """Folders of this machine that no text should tell, whether what is below them exists or not.

    Args:
        given: Files and folders that are pushed.

    Returns:
        The home folder, the working folder, and the folders of what is given with those that hold them: each as it is named
        and with its links resolved, if it has two parts or more (`/root` or `/workspace` name nobody).
    """
    folders = [Path.cwd()]
    if Path.home().name.lower() not in _NOBODY:
        folders.append(Path.home())
    for path in map(Path, given):
        if path.exists():
            folders += [path.absolute().parent, *([path.absolute()] if path.is_dir() else [])]
    places = {str(form) for folder in folders for form in (Path(os.path.abspath(folder)), folder.resolve())}
    return tuple(sorted(place for place in places if len(Path(place).parts) > 2 and not _is_of_the_system(place)))


def refuse_private_text(text: str, name: str | Path, places: Sequence[str]) -> None:
    r"""Refuses a text with a token of the Hub or a path of this machine.

    Paths are: `places` and what is below them; home folders (`/home/NAME`, `/Users/NAME`, `C:\Users\NAME`) of whatever
    machine; and absolute paths whose first two parts or more exist here, without those of the system and of Python.

    Args:
        text: What would be uploaded.
        name: Its file, for the error message.
        places: See [`own_places`][trl_rrtf.models.private_text.own_places].

    Raises:
        ConfigError: File and line are named; a token is not repeated.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        found = _secret(line, places) or _home(line) or _path_here(line)
        if found:
            raise ConfigError(f"`{name}`, line {number}: {found}")


def refuse_private_rows(input: str | Path, places: Sequence[str]) -> None:
    """Refuses rows with a token of the Hub, or a path at or below `places`, in whatever column.

    Other paths pass: programs and problems may well tell of `/home/user`.

    Args:
        input: A file of rows.
        places: See [`own_places`][trl_rrtf.models.private_text.own_places].

    Raises:
        RowError: Row and column are named; a token is not repeated.
    """
    for where, row in iterate_rows(input):
        for column, text in _texts(row, ""):
            found = _secret(text, places)
            if found:
                raise RowError(where, column, found)


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every text in a value, names of fields included, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            inner_place = f"{place}.{name}" if place else str(name)
            yield place or "the names of the columns", str(name)
            yield from _texts(inner, inner_place)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{index}]")


def _secret(text: str, places: Sequence[str]) -> str | None:
    if _TOKEN.search(text):
        return "holds a token of the Hub; remove it there, and revoke it on the Hub"
    plain = _unescaped(text)
    for place in places:
        if place in plain and re.search(rf"{_BEGIN}{re.escape(place)}(?![\w-]|\.\w)", plain):
            return f"tells `{place}`, a path of this machine; {_ADVICE}"
    return None


def below_home(path: str) -> str | None:
    """What of a path lies below somebody's home folder: empty for the folder itself, None where the path is none of these."""
    match = _HOME.match(path)
    return None if match is None or match[1].lower() in _NOBODY else path[match.end() :].strip("/")


def _home(line: str) -> str | None:
    for match in (*_HOME.finditer(_unescaped(line)), *_WINDOWS_HOME.finditer(line)):
        if match[1].rstrip(".").lower() not in _NOBODY:
            return f"tells `{match[0]}`, a home folder; {_ADVICE}, or `~`, or `/home/user`"
    return None


def _path_here(line: str) -> str | None:
    for match in _ABSOLUTE.finditer(_unescaped(line)):
        path = _as_far_as_it_is_here(match[0])
        if path and not _is_of_the_system(path):
            return f"tells `{path}`, a path of this machine; {_ADVICE}"
    return None


@functools.lru_cache(maxsize=65536)
def _as_far_as_it_is_here(path: str) -> str | None:
    """The longest beginning of a path that exists, of two parts or more; what follows may be the rest of a sentence."""
    parts = path.split("/")[1:]
    for length in range(len(parts), 1, -1):
        beginning = os.path.normpath("/" + "/".join(parts[:length]).rstrip(".="))
        if len(Path(beginning).parts) > 2 and os.path.exists(beginning):
            return beginning
    return None


def _is_of_the_system(path: str) -> bool:
    return any(Path(path).is_relative_to(prefix) for prefix in _OF_THE_SYSTEM)


def _unescaped(text: str) -> str:
    """Undoes what JSON and Python write for slashes, line breaks and letters beyond ASCII."""
    if "\\" not in text:
        return text
    text = _ESCAPED_SPACE.sub(" ", text.replace("\\/", "/"))
    return _ESCAPED_CHARACTER.sub(lambda match: chr(int(match[1], 16)), text)
