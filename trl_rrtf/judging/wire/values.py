"""How values cross between the checker and a candidate's process: copies of plain values, references to all else.

A closed set of types, packed by MessagePack; no pickle or marshal, so that unpacking what a hostile program sent can only make
plain values. These cross as copies, re-created by exact type: None, bool, int of any size, float, complex, str (lone surrogates
too), bytes, bytearray, list, tuple, set, frozenset, dict with any plain key, views of dictionaries, Counter, OrderedDict,
defaultdict, deque, array, range, slice, Decimal, Fraction, UUID, paths, date, time, datetime, timedelta, numpy scalars and
arrays, builtin types, Ellipsis and NotImplemented, exceptions, and instances of classes that both sides know (from the
problem's setup code).

Anything else becomes a reference to an object that stays with its owner. What may be referred to, and what the other side can
do with a reference, is the business of the two processes (see `checker/remote.py` and `candidate/program.py`).
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import msgpack

from trl_rrtf.judging.wire.known_types import (
    BASES,
    NAMED_TYPES,
    MalformedValueError,
    attributes,
    base_value,
    numpy_parts,
    numpy_value,
)

MAX_DEPTH = 100
"""Containers other than lists and dicts inside each other; each level costs C stack while unpacking."""

(_TUPLE, _SET, _FROZENSET, _INTEGER, _COMPLEX, _NAMED, _NUMPY, _BUILTIN) = range(1, 9)
(_EXCEPTION, _INSTANCE, _SUBCLASS, _ENUM, _BYTEARRAY, _SINGLETON) = range(9, 15)
_LONGEST_ARGUMENT = 10_000
_LONG, _MOST_CONTAINERS, _SMALL_CONTAINERS = 2**20, 16 * 2**20, bytes(range(0x80, 0xA0))
_PLAIN, _WITH_INSTANCES = b"p", b"i"
OWN, YOURS = 20, 21
"""A reference to an object of the sender, and one of the receiver's own objects on its way back."""

_SINGLETONS = {"Ellipsis": ..., "NotImplemented": NotImplemented}


class CannotCrossError(BaseException):
    """A value that has no copy and may not be referred to. No `except Exception` of a test catches it."""


class Codec:
    """Packs and unpacks the values of one process. The two sides override what a reference means to them."""

    def refer(self, value: Any) -> tuple[int, Any]:
        """The code (`OWN` or `YOURS`) and the plain payload that stand for an object.

        Raises:
            CannotCrossError: No reference to such an object may be given away.
        """
        raise CannotCrossError(f"a value of type {type(value).__name__} cannot be handed over")

    def resolve(self, code: int, payload: Any) -> Any:
        """The object that a received reference stands for."""
        raise MalformedValueError(f"an unexpected reference (code {code})")

    def known_class(self, name: str) -> type | None:
        """The class that both sides know under a name; its instances cross as copies."""
        return None

    def class_for(self, name: str) -> type | None:
        """The class of a received instance; by default the one that both sides know."""
        return self.known_class(name)

    def set_attribute(self, instance: Any, name: str, value: Any) -> None:
        """Gives a received instance one of its attributes."""
        object.__setattr__(instance, name, value)

    def with_base(self, base: Any, class_name: str, payload: Any) -> Any:
        """A received instance of a subclass of a builtin; by default just its base value."""
        return base

    def exception_reference(self, error: BaseException) -> Any:
        """What stands for an exception beside its copy, if anything."""
        return None

    def received_exception(self, names: list[str], reference: Any, arguments: list[Any], text: str) -> BaseException:
        """A received exception, given the names of its classes from the nearest up; by default of the nearest builtin one."""
        return make_exception(nearest_builtin(names), arguments, text)

    def pack(self, value: Any) -> bytes:
        """Packs a value.

        Raises:
            CannotCrossError: Nested too deeply, cyclic, or of a type that cannot cross.
        """
        packing = _Packing(self)
        try:
            root = packing.plain(value)
            instances = packing.instances()
            return _WITH_INSTANCES + _pack([root, instances]) if instances else _PLAIN + root
        except CannotCrossError:
            raise
        except (ValueError, RecursionError, OverflowError) as error:
            raise CannotCrossError(f"a value that is nested too deeply or too large ({error})") from None

    def pack_exception(self, error: BaseException) -> bytes:
        """Packs names of its classes, its plain arguments, its text, and what stands for it."""
        arguments = []
        for argument in error.args:
            if argument is None or type(argument) in (bool, int, float, str, bytes, tuple, list, dict):
                try:
                    packed = self.pack(argument)
                except CannotCrossError:
                    continue
                if len(packed) <= _LONGEST_ARGUMENT:
                    arguments.append(argument)
        return _pack([class_names(type(error)), self.exception_reference(error), self.pack(arguments), _text(error)])

    def unpack_exception(self, data: bytes) -> BaseException:
        """Re-creates an exception.

        Raises:
            MalformedValueError: Not what `pack_exception` makes.
        """
        try:
            names, reference, arguments, text = _unpack(data, None)
            if type(names) is not list or not names or type(text) is not str:
                raise MalformedValueError("a malformed exception")
            return self.received_exception([str(name) for name in names], reference, self.unpack(arguments), text)
        except (MalformedValueError, MemoryError):
            raise
        except Exception as error:
            raise MalformedValueError(f"{type(error).__name__}: {error}") from None

    def unpack(self, data: bytes) -> Any:
        """Re-creates a value.

        Raises:
            MalformedValueError: Not what `pack` makes.
        """
        try:
            if data[:1] == _PLAIN:
                return _Unpacking(self, []).value(data[1:])
            root, instances = _unpack(data[1:], None)
            return _Unpacking(self, instances).value(root)
        except MalformedValueError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            raise MalformedValueError(f"{type(error).__name__}: {error}") from None


def nearest_builtin(names: list[str]) -> type[BaseException]:
    """The first of the class names that is a builtin exception."""
    for name in map(str, names):
        found = getattr(builtins, name, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
    return Exception


def class_names(kind: type) -> list[str]:
    """Names of a class and its ancestors, from the nearest up."""
    return [str(parent.__name__) for parent in type.mro(kind)]


def _pack(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    packed: bytes = msgpack.packb(value, default=default, strict_types=True, unicode_errors="surrogatepass", buf_size=4096)
    return packed


def _unpack(data: bytes, ext_hook: Callable[[int, bytes], Any] | None) -> Any:
    if len(data) > _LONG and len(data) - len(data.translate(None, _SMALL_CONTAINERS)) > _MOST_CONTAINERS:
        raise MalformedValueError("too many containers")  # a byte can be a list, which takes 60 bytes of memory
    hook = {} if ext_hook is None else {"ext_hook": ext_hook}
    return msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass", **hook)


class _ByteArray:
    def __init__(self, value: bytearray) -> None:
        self.value = value


class _Packing:
    """One message on its way out: instances are listed once, so that links between them (also cycles) survive."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._depth = 0
        self._found: list[Any] = []
        self._index: dict[int, int] = {}

    def plain(self, value: Any) -> bytes:
        # MessagePack takes a bytearray for bytes and asks nobody, so one is marked, where that costs no walk through the value.
        if type(value) is bytearray:
            value = _ByteArray(value)
        elif type(value) is list and bytearray in map(type, value):
            value = [_ByteArray(part) if type(part) is bytearray else part for part in value]
        elif type(value) is dict and bytearray in map(type, value.values()):
            value = {key: _ByteArray(part) if type(part) is bytearray else part for key, part in value.items()}
        return _pack(value, self._default)

    def instances(self) -> list[list[Any]]:
        packed: list[list[Any]] = []
        while len(packed) < len(self._found):  # packing one may find more
            instance = self._found[len(packed)]
            packed.append([type(instance).__name__, self.plain(attributes(instance))])
        return packed

    def _default(self, value: Any) -> msgpack.ExtType:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CannotCrossError(f"a value nested deeper than {MAX_DEPTH} levels")
        try:
            return msgpack.ExtType(*self._extension(value))
        finally:
            self._depth -= 1

    def _extension(self, value: Any) -> tuple[int, bytes]:
        kind: type = type(value)
        if kind is tuple:
            return _TUPLE, self.plain(list(value))
        if kind is set or kind is frozenset:
            return (_SET if kind is set else _FROZENSET), self.plain(list(value))
        if kind is int:
            return _INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        if kind is complex:
            return _COMPLEX, _pack([value.real, value.imag])
        if kind is _ByteArray:
            return _BYTEARRAY, bytes(value.value)
        if value is Ellipsis or value is NotImplemented:
            return _SINGLETON, repr(value).encode()
        if kind.__name__ in NAMED_TYPES and (parts := NAMED_TYPES[kind.__name__][0](value, kind)) is not None:
            return _NAMED, self.plain([kind.__name__, parts])
        if kind.__module__ == "numpy" and (array := numpy_parts(value)) is not None:
            return _NUMPY, _pack(array)
        if issubclass(kind, type):
            name = str(value.__name__)
            if getattr(builtins, name, None) is value:
                return _BUILTIN, name.encode()
        elif issubclass(kind, BaseException):
            return _EXCEPTION, self._codec.pack_exception(value)
        elif self._codec.known_class(kind.__name__) is kind:
            return self._known(value, kind)
        return self._reference(value)

    def _known(self, value: Any, kind: type) -> tuple[int, bytes]:
        if (member := getattr(value, "_name_", None)) and hasattr(kind, "__members__"):
            return _ENUM, _pack([kind.__name__, str(member)])
        base = next((base for base in BASES if issubclass(kind, base)), None)
        if base is not None:
            return _SUBCLASS, self.plain([base_value(value, base), kind.__name__, None])
        if id(value) not in self._index:
            self._index[id(value)] = len(self._found)
            self._found.append(value)
        return _INSTANCE, _pack(self._index[id(value)])

    def _reference(self, value: Any) -> tuple[int, bytes]:
        kind: type = type(value)
        base = next((base for base in BASES if issubclass(kind, base)), None)
        code, payload = self._codec.refer(value)
        if base is not None and code == OWN:
            return _SUBCLASS, self.plain([base_value(value, base), kind.__name__, payload])
        return code, _pack(payload)


class _Unpacking:
    """One message on its way in."""

    def __init__(self, codec: Codec, instances: list[Any]) -> None:
        self._codec = codec
        self._depth = 0
        self._instances = [self._shell(name) for name, _ in instances]
        for shell, (_, packed) in zip(self._instances, instances, strict=True):
            for name, value in self.value(packed).items():
                codec.set_attribute(shell, str(name), value)

    def value(self, data: bytes) -> Any:
        return _unpack(data, self._extension)

    def _shell(self, name: str) -> Any:
        kind = self._codec.class_for(str(name))
        if kind is None:
            raise MalformedValueError(f"an instance of the unknown class {name!r}")
        return object.__new__(kind)

    def _extension(self, code: int, data: bytes) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise MalformedValueError(f"nested deeper than {MAX_DEPTH} levels")
        try:
            return self._extended(code, data)
        finally:
            self._depth -= 1

    def _extended(self, code: int, data: bytes) -> Any:
        if code == _TUPLE:
            return tuple(self.value(data))
        if code in (_SET, _FROZENSET):
            return (set if code == _SET else frozenset)(self.value(data))
        if code == _INTEGER:
            return int.from_bytes(data, "little", signed=True)
        if code == _BYTEARRAY:
            return bytearray(data)
        if code == _SINGLETON:
            return _SINGLETONS[data.decode()]
        if code == _BUILTIN:
            return _builtin_type(data.decode())
        if code == _EXCEPTION:
            return self._codec.unpack_exception(data)
        content = self.value(data)
        if code == _COMPLEX:
            return complex(*content)
        if code == _NAMED:
            return NAMED_TYPES[content[0]][1](content[1])
        if code == _NUMPY:
            return numpy_value(*content)
        if code == _INSTANCE:
            return self._instances[content]
        if code == _ENUM:
            return getattr(self._codec.class_for(content[0]), "__members__", {})[content[1]]
        if code == _SUBCLASS:
            return self._codec.with_base(content[0], str(content[1]), content[2])
        return self._codec.resolve(code, content)


def make_exception(kind: type[BaseException], arguments: list[Any], text: str) -> BaseException:
    """An exception with the same arguments, or at least the same text."""
    for candidate in (arguments, [text]):
        try:
            return kind(*candidate)
        except Exception:  # such as UnicodeDecodeError, which needs five arguments
            continue
    return Exception(text)


def _text(error: BaseException) -> str:
    try:
        return str(error)[:1000]
    except BaseException:
        return ""


def _builtin_type(name: str) -> type:
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type):
        raise MalformedValueError(f"{name!r} is no builtin type")
    return kind
