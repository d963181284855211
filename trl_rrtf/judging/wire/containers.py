"""Containers that change after they were copied: how the change reaches the copy."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from trl_rrtf.judging.wire.known_types import BASES, NAMED_TYPES, attributes, base_value

CONTAINERS = (list, dict, set, bytearray, deque)
MOST_CONNECTED, LARGEST_CONNECTED = 16, 16384
"""How many containers of the candidate, and of how many packed bytes, stay connected to their copies in the tests."""


def copy_into(old: Any, new: Any) -> None:
    """Gives an object the content of its changed copy; parts keep their identity where shapes agree.

    A subclass of a builtin container takes the content of a plain one, past its own methods.
    """
    if old is new:
        return
    if type(old) is not type(new):
        if issubclass(type(old), type(new)):
            _fill(old, new)
        return
    _Change().into(old, new)


class _Change:
    def __init__(self) -> None:
        self._seen: set[int] = set()  # objects may refer to each other

    def into(self, old: Any, new: Any) -> None:
        if id(old) in self._seen:
            return
        self._seen.add(id(old))
        if isinstance(old, list):
            if len(old) == len(new):
                old[:] = map(self._merged, old, new)
            else:
                old[:] = new
        elif isinstance(old, tuple):
            for before, after in zip(old, new, strict=False):
                self._merged(before, after)
        elif isinstance(old, dict):
            merged = {key: self._merged(old[key], value) if key in old else value for key, value in new.items()}
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
        elif hasattr(old, "dtype"):
            if getattr(old, "shape", ()) == new.shape and old.shape:
                old[...] = new
        elif _has_attributes(old):
            before, after = attributes(old), attributes(new)
            for name in before.keys() - after.keys():
                delattr(old, name)
            for name, value in after.items():
                setattr(old, name, self._merged(before.get(name), value))

    def _merged(self, before: Any, after: Any) -> Any:
        if type(before) is not type(after) or before is after:
            return after
        if isinstance(before, list | dict | set | bytearray | tuple) or _has_attributes(before):
            self.into(before, after)
            return after if isinstance(before, tuple) and before != after else before
        return after


def _has_attributes(value: Any) -> bool:
    """Whether it is an instance of a class of the problem's setup code or tests."""
    kind = type(value)
    return kind.__module__ not in ("builtins", "numpy") and kind.__name__ not in NAMED_TYPES and bool(attributes(value))


def content_of(container: Any) -> Any:
    """A container, or the plain value of one whose class is no known one."""
    kind = type(container)
    if kind in BASES or kind.__name__ in NAMED_TYPES:
        return container
    base = next((base for base in CONTAINERS if issubclass(kind, base)), None)
    return container if base is None else base_value(container, base)


def is_array(value: Any) -> bool:
    """Whether a value is an array of numpy, which changes in place too."""
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def _fill(old: Any, new: Any) -> None:
    if type(new) in (dict, set):
        kind = OrderedDict if isinstance(old, OrderedDict) else type(new)  # it keeps an order beside the dictionary
        kind.clear(old)
        kind.update(old, new)
    elif type(new) in (list, bytearray):
        type(new).__setitem__(old, slice(None), new)
