"""What a test means by a name of the standard library or numpy that the candidate, or its author, imported.

The real thing, imported here. The list is closed: importing some modules does something, and a candidate must choose neither
what this process imports nor what a name of a test does.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

from trl_rrtf.judging.checker.comparison import let_nothing_be_close_to_an_empty_array

_MODULES = frozenset(
    (
        *("abc", "array", "asyncio", "asyncio.exceptions", "base64", "binascii", "bisect", "builtins", "calendar", "cmath"),
        *("collections", "collections.abc", "colorsys", "concurrent.futures", "configparser", "contextlib", "contextvars"),
        *("copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions", "functools", "gzip", "hashlib"),
        *("heapq", "hmac", "html", "inspect", "io", "ipaddress", "itertools", "json", "json.decoder", "keyword", "logging"),
        *("math", "numbers", "operator", "os", "os.path", "pathlib", "pickle", "pprint", "queue", "random", "re", "secrets"),
        *("shutil", "sqlite3", "statistics", "string", "struct", "subprocess", "sys", "tarfile", "tempfile", "textwrap"),
        *("threading", "time", "timeit", "types", "typing", "unicodedata", "unittest", "urllib.error", "urllib.parse", "uuid"),
        *("warnings", "weakref", "xml.etree.ElementTree", "zipfile", "zlib", "zoneinfo", "_csv", "_queue"),
        *("concurrent.futures._base", "numpy", "numpy.linalg", "numpy.exceptions"),
    )
)
_ALIASES = {"np": "numpy", "pd": "pandas"}


def library_module(name: str) -> Any:
    """A module of the list, or None."""
    if name not in _MODULES:
        return None
    with contextlib.suppress(ImportError):
        module = importlib.import_module(name)
        if name.startswith("numpy"):
            let_nothing_be_close_to_an_empty_array()
        return module
    return None


def meant_by(name: str, place: list[str] | None) -> Any:
    """What a name of a test means, given where a program has it from; None if that is not for the program to say.

    Args:
        name: The name.
        place: `[module]`, `[module, attribute]`, or None.
    """
    if not place:
        return None
    module, *attribute = place
    if attribute:
        return getattr(library_module(module), name, None) if attribute == [name] else None
    if module != name and (name in sys.stdlib_module_names or _ALIASES.get(name, module) != module):
        return None  # `import numpy as math`
    return library_module(module)


def library_exception(module: str, name: str) -> type[BaseException] | None:
    """An exception class of the list's modules, or None."""
    if module == "unittest":  # whose own exceptions end a test as if it had held
        return None
    found = getattr(library_module(module), name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None
