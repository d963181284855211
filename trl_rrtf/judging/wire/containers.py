"""Containers that change after they were copied: how the change reaches the copy."""

from __future__ import annotations

from typing import Any

from trl_rrtf.judging.wire.known_types import BASES, NAMED_TYPES, attributes, base_value

CONTAINERS = (list, dict, set, bytearray)
MOST_CONNECTED, LARGEST_CONNECTED = 16, 16384
"""How many containers of the candidate, and of how many packed bytes, stay connected to their copies in the tests."""


def copy_into(old: Any, new: Any) -> None:
    """Gives an object the content of its changed copy; parts keep their identity where shapes agree.

    A subclass of a builtin container takes the content of a plain one, past its own methods.
    """
    if type(old) is not type(new):
        if issubclass(type(old), type(new)):
            _fill(old, new)
        return
    if isinstance(old, list):
        if len(old) == len(new):
            for index, (before, after) in enumerate(zip(old, new, strict=True)):
                old[index] = _merged(before, after)
        else:
            old[:] = new
    elif isinstance(old, dict):
        merged = {key: _merged(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old |= new
    elif isinstance(old, bytearray) or type(old).__name__ == "array":
        old[:] = new
    elif hasattr(old, "extend") and hasattr(old, "clear"):  # deque
        old.clear()
        old.extend(new)
    elif hasattr(old, "dtype") and getattr(old, "shape", ()) == getattr(new, "shape", None) and old.shape:
        old[...] = new
    elif type(type(old)) is type and hasattr(old, "__dict__"):
        for name, value in attributes(new).items():
            setattr(old, name, _merged(getattr(old, name, None), value))


def content_of(container: Any) -> Any:
    """A container, or the plain value of one whose class is no known one."""
    kind = type(container)
    if kind in BASES or kind.__name__ in NAMED_TYPES:
        return container
    base = next((base for base in CONTAINERS if issubclass(kind, base)), None)
    return container if base is None else base_value(container, base)


def _fill(old: Any, new: Any) -> None:
    if type(new) in (dict, set):
        type(new).clear(old)
        type(new).update(old, new)
    elif type(new) in (list, bytearray):
        type(new).__setitem__(old, slice(None), new)


def _merged(before: Any, after: Any) -> Any:
    if type(before) is type(after) and isinstance(before, list | dict | set | bytearray):
        copy_into(before, after)
        return before
    return after
