"""A value as text that is the same for equal values: what an observation gives of it."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import Any

from trl_rrtf.judging.checker.code_of_tests import is_class_of_tests
from trl_rrtf.judging.checker.stand_ins import link_of
from trl_rrtf.judging.wire.known_types import BASES, attributes, base_value

LONGEST_TEXT = 2000
"""Characters after which a text is cut, with a digest of the whole behind it."""
_MOST_PARTS = 200_000
_MOST_BITS = 10_000
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DICTIONARIES = (dict, Counter, OrderedDict, defaultdict)
_VIEWS = {type({}.keys()): "dict_keys", type({}.values()): "dict_values", type({}.items()): "dict_items"}


class NotShownError(Exception):
    """A value that has no text of its own."""


def canonical(value: Any) -> str:
    """A value's text, like its `repr`, cut to a bounded length.

    Sets and dictionaries are sorted, and what compares as a builtin container is written as that: a named tuple as a tuple, a
    `Counter` as a dictionary, a frozen set as a set. Objects of the program's own classes give their own `repr`, so this may be
    any text that the program's author likes.

    Raises:
        NotShownError: It has no text but its address (a function, a generator, an object without `__repr__`), or is too large.
    """
    try:
        return bounded(_Writer().text(value))
    except RecursionError:
        raise NotShownError("a value that is nested too deeply to be shown") from None


def bounded(text: str) -> str:
    """A text, cut where it is long; equal ones stay equal, and others different."""
    if len(text) <= LONGEST_TEXT:
        return text
    import hashlib  # here: a module more makes every fork of a checker slower

    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{text[:LONGEST_TEXT]}... ({len(text)} characters, SHA-256 {digest})"


class _Writer:
    """Writes one value."""

    def __init__(self) -> None:
        self._parts = 0
        self._inside: set[int] = set()  # objects of the problem's setup code may refer to each other

    def text(self, value: Any) -> str:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise NotShownError(f"a value of more than {_MOST_PARTS} parts")
        kind = type(value)
        if kind is int and value.bit_length() > _MOST_BITS:
            return hex(value)  # its decimal digits would take long
        if kind in (list, tuple, deque):
            return self._sequence(value, kind)
        if kind in (set, frozenset):
            return f"{{{', '.join(self._sorted(value))}}}" if value else "set()"
        if kind in _DICTIONARIES:
            return f"{{{', '.join(self._items(value))}}}"
        if kind in _VIEWS:
            parts = map(self.text, value) if _VIEWS[kind] == "dict_values" else self._sorted(value)
            return f"{_VIEWS[kind]}([{', '.join(parts)}])"
        if kind is bytearray:
            return repr(bytes(value))
        if kind.__module__ == "numpy" and hasattr(value, "tolist"):
            return f"array({self.text(value.tolist())})" if getattr(value, "shape", ()) else self.text(value.item())
        return self._object(value, kind)

    def _sequence(self, value: Any, kind: type) -> str:
        inner = ", ".join(map(self.text, value))
        if kind is tuple:
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        return f"[{inner}]" if kind is list else f"deque([{inner}])"

    def _items(self, dictionary: dict[Any, Any]) -> list[str]:
        kinds = {type(key) for key in dictionary}
        if kinds <= {int} or kinds <= {str}:
            return [f"{self.text(key)}: {self.text(dictionary[key])}" for key in sorted(dictionary)]
        return sorted(f"{self.text(key)}: {self.text(part)}" for key, part in dictionary.items())

    def _sorted(self, values: Iterable[Any]) -> list[str]:
        kinds = {type(value) for value in values}
        if kinds <= {int} or kinds <= {str}:  # as one reads them
            return [self.text(value) for value in sorted(values)]
        return sorted(map(self.text, values))

    def _object(self, value: Any, kind: type) -> str:
        if link_of(value) is not None or is_class_of_tests(kind):
            member = getattr(value, "_name_", None) if is_class_of_tests(kind) else None
            if member is not None and hasattr(kind, "__members__"):
                return f"{kind.__name__}.{member}"
            base = next((base for base in BASES if issubclass(kind, base)), None)
            if base is not None:  # by which it is compared
                return self.text(base_value(value, base))
        if isinstance(value, BaseException) and link_of(value) is None:
            return f"{kind.__name__}({', '.join(map(self.text, value.args))})"
        has_own_text = getattr(kind, "__repr__", None) is not object.__repr__ and not hasattr(kind, "__dataclass_fields__")
        if is_class_of_tests(kind) and not has_own_text:
            return self._by_attributes(value, kind)
        text = repr(value)
        if not isinstance(value, str | bytes) and _ADDRESS.search(text):
            raise NotShownError(f"a value of type {kind.__name__}, which has no text of its own")
        return text

    def _by_attributes(self, value: Any, kind: type) -> str:
        if id(value) in self._inside:
            return "..."
        self._inside.add(id(value))
        parts = (f"{name}={self.text(part)}" for name, part in sorted(attributes(value).items()))
        text = f"{kind.__name__}({', '.join(parts)})"
        self._inside.discard(id(value))
        return text
