"""Types that cross as copies beside MessagePack's own: how to take a value apart, and how to make it again."""

from __future__ import annotations

import operator
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

BASES = (int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset)
"""Builtin types whose subclasses cross as a copy of the base value."""
_NUMPY_KINDS = "biufcSUMm"


class MalformedValueError(Exception):
    """Bytes that no honest process sends."""


def attributes(instance: Any) -> dict[str, Any]:
    """What an object holds, in its dictionary or in slots."""
    found = dict(getattr(instance, "__dict__", {}))
    for kind in type.mro(type(instance)):
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(instance, name):
                found[name] = getattr(instance, name)
    return found


def base_value(value: Any, base: type) -> Any:
    """The plain value inside an instance of a subclass."""
    if base is int:
        return int.__add__(value, 0)
    if base is float:
        return float.__add__(value, 0.0)
    if base is str:
        return str.__str__(value)
    if base is dict:
        return dict(dict.items(value))
    if base in (list, tuple):
        return base(base.__iter__(value))  # type: ignore[attr-defined]
    return base(value)


def numpy_parts(value: Any) -> list[Any] | None:
    """Type, shape (None for a scalar) and bytes of a numpy array or scalar; None when it has no plain bytes."""
    numpy = sys.modules["numpy"]
    if not isinstance(value, numpy.ndarray | numpy.generic) or value.dtype.kind not in _NUMPY_KINDS:
        return None
    shape = list(value.shape) if isinstance(value, numpy.ndarray) else None
    return [value.dtype.str, shape, value.tobytes()]


def numpy_value(dtype: str, shape: list[int] | None, data: bytes) -> Any:
    """Makes it again."""
    import numpy

    kind = numpy.dtype(dtype)
    if kind.kind not in _NUMPY_KINDS:
        raise MalformedValueError(f"numpy type {dtype!r}")
    array = numpy.frombuffer(data, dtype=kind)
    return array[0] if shape is None else array.reshape(shape).copy()


def _exact(kind_name: str, parts: Callable[[Any], Any]) -> Callable[[Any, type], Any]:
    """Takes a value apart only if its class is the real one of that name, and no subclass or namesake."""

    def take_apart(value: Any, kind: type) -> Any:
        return parts(value) if kind is _named_type(kind_name) else None

    return take_apart


def _view(view: type, parts: Callable[[Any], Any]) -> Callable[[Any, type], Any]:
    """The same for a type that no module names."""
    return lambda value, kind: parts(value) if kind is view else None


def _named_type(name: str) -> type:
    module = _MODULE_OF[name]
    found = sys.modules.get(module)
    if found is None:
        found = __import__(module)
    kind: type = getattr(found, name)
    return kind


def _make(name: str) -> Callable[[Any], Any]:
    return lambda parts: _named_type(name)(*parts)


def _iso(name: str) -> Callable[[Any], Any]:
    return lambda parts: _named_type(name).fromisoformat(parts[0])  # type: ignore[attr-defined]


_MODULE_OF = {
    **dict.fromkeys(("range", "slice"), "builtins"),
    **dict.fromkeys(("deque", "Counter", "OrderedDict", "defaultdict"), "collections"),
    **dict.fromkeys(("date", "time", "datetime", "timedelta"), "datetime"),
    "Decimal": "decimal",
    "Fraction": "fractions",
    "UUID": "uuid",
    "array": "array",
    **dict.fromkeys(("PurePosixPath", "PureWindowsPath", "PosixPath"), "pathlib"),
}

NAMED_TYPES: dict[str, tuple[Callable[[Any, type], Any], Callable[[Any], Any]]] = {
    "range": (_exact("range", lambda v: [v.start, v.stop, v.step]), _make("range")),
    "slice": (_exact("slice", lambda v: [v.start, v.stop, v.step]), _make("slice")),
    "deque": (_exact("deque", lambda v: [list(v), v.maxlen]), lambda parts: deque(*parts)),
    "Counter": (_exact("Counter", lambda v: [dict(v)]), lambda parts: Counter(*parts)),
    "OrderedDict": (_exact("OrderedDict", lambda v: [dict(v)]), lambda parts: OrderedDict(*parts)),
    "defaultdict": (
        _exact("defaultdict", lambda v: [v.default_factory if v.default_factory in BASES else None, dict(v)]),
        lambda parts: defaultdict(*parts),
    ),
    "Decimal": (_exact("Decimal", lambda v: [str(v)]), _make("Decimal")),
    "Fraction": (
        _exact("Fraction", lambda v: [v.numerator, v.denominator]),
        lambda parts: _named_type("Fraction")(*map(operator.index, parts)),
    ),
    "date": (_exact("date", lambda v: [v.isoformat()]), _iso("date")),
    "time": (_exact("time", lambda v: [v.isoformat()]), _iso("time")),
    "datetime": (_exact("datetime", lambda v: [v.isoformat()]), _iso("datetime")),
    "UUID": (_exact("UUID", lambda v: [str(v)]), _make("UUID")),
    "array": (_exact("array", lambda v: [v.typecode, v.tolist()]), _make("array")),
    **{name: (_exact(name, lambda v: [str(v)]), _make(name)) for name in ("PurePosixPath", "PureWindowsPath", "PosixPath")},
    "dict_keys": (_view(type({}.keys()), list), lambda parts: dict.fromkeys(parts).keys()),
    "dict_values": (_view(type({}.values()), list), lambda parts: dict(enumerate(parts)).values()),
    "dict_items": (_view(type({}.items()), list), lambda parts: dict(parts).items()),
    "timedelta": (_exact("timedelta", lambda v: [v.days, v.seconds, v.microseconds]), _make("timedelta")),
}
"""Name -> (how to take one apart, or None if it is another type of that name; how to make one)."""
