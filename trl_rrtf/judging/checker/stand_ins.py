"""What tests see of a candidate: stand-ins in the checker, whose every act happens in the candidate's process.

For each class of the candidate that a test meets, a class is made here, with the same name, the same ancestors and the same
special methods, so that `type`, `isinstance`, `issubclass`, operators and `except` mean what they mean in one process. Its
instances hold nothing: the session knows which object of the candidate each stands for.

What decides about expected values stays here. Comparison with test data never goes to the candidate, and arithmetic with it
only if the tests name the object's class, since that would show what is expected, and let the candidate decide. Equality
between two of its objects counts only if it does not hold for anything else as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_rrtf.judging.wire.protocol import Operation

if TYPE_CHECKING:
    from trl_rrtf.judging.checker.remote import Session


class Link(NamedTuple):
    """Which object a stand-in stands for.

    Attributes:
        stand_in: The stand-in; kept, so that no other object gets its `id`.
        session: The conversation with the candidate.
        target: Number of the object, or name of a global.
    """

    stand_in: Any
    session: Session
    target: int | str


# Outside of the stand-ins, whose attributes may have any name.
_LINKS: dict[int, Link] = {}


def connect(stand_in: Any, session: Session, target: int | str) -> Any:
    """Tells which object a stand-in stands for; returns the stand-in."""
    _LINKS[id(stand_in)] = Link(stand_in, session, target)
    return stand_in


def link_of(value: Any) -> Link | None:
    """Which object of the candidate a value stands for, if any."""
    return _LINKS.get(id(value))


def forget_all() -> None:
    """Forgets the stand-ins of an earlier candidate."""
    _LINKS.clear()


def _operate(stand_in: Any, operation: Operation, /, *operands: Any, **keywords: Any) -> Any:
    link = _LINKS[id(stand_in)]
    return link.session.operate(operation, link.target, *operands, **keywords)


def _special(stand_in: Any, name: str, *operands: Any) -> Any:
    return _operate(stand_in, Operation.SPECIAL, name, *operands)


_KEPT_BY_PYTHON = {"__traceback__", "__cause__", "__context__", "__suppress_context__", "__notes__", "__class__"}
"""Attributes of exceptions that the interpreter and `contextlib` set."""


_ASKED_FOR = frozenset(
    f"__{name}__"
    for name in (
        *("name", "qualname", "doc", "dict", "wrapped", "annotations", "members", "dataclass_fields", "self", "func", "array"),
        *(
            "defaults",
            "kwdefaults",
            "slots",
            "match_args",
            "abstractmethods",
            "args",
            "origin",
            "init",
            "str",
            "repr",
            "format",
        ),
    )
)
"""Attributes with underscores that an object of the candidate may answer to, beside the special methods of its class.

Others are how libraries talk to each other, in this process: with `__array_interface__` an object could show numpy any memory.
"""

_PREDICATES = frozenset(
    name for kind in (str, bytes, set, dict, list) for name in dir(kind) if name.startswith(("is", "startswith", "endswith"))
)
"""Methods of builtin types that are told an expected value and say whether it is right."""


def _attribute(stand_in: Any, name: str) -> Any:
    if name.startswith("__") and name.endswith("__") and name not in _ASKED_FOR and name not in _SPECIAL_METHODS:
        raise AttributeError(f"{name} of an object of the program is not asked for")
    return _operate(stand_in, Operation.GET_ATTRIBUTE, name)


class StandIn:
    """Ancestor of all stand-ins for objects. It has no attribute of its own but special ones."""

    __slots__ = ()
    __array_ufunc__ = None  # numpy leaves comparison and arithmetic to the methods below

    def __getattr__(self, name: str) -> Any:
        if name in _PREDICATES and not _LINKS[id(self)].session.is_named(type(self)):
            raise AttributeError(f"{name} of an object whose class the tests do not name: it would decide")
        return _attribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _KEPT_BY_PYTHON:
            object.__setattr__(self, name, value)
        else:
            _operate(self, Operation.SET_ATTRIBUTE, name, value)

    def __delattr__(self, name: str) -> None:
        _operate(self, Operation.DELETE_ATTRIBUTE, name)

    def __copy__(self) -> Any:
        return _operate(self, Operation.COPY)

    def __deepcopy__(self, memory: Any) -> Any:
        return _operate(self, Operation.DEEP_COPY)

    def __str__(self) -> str:
        return str(_special(self, "__str__"))

    def __repr__(self) -> str:
        return str(_special(self, "__repr__"))

    def __format__(self, specification: str) -> str:
        return str(_special(self, "__format__", specification))

    __doc__ = property(lambda self: _operate(self, Operation.GET_ATTRIBUTE, "__doc__"))  # type: ignore[assignment]
    __dict__ = property(lambda self: _operate(self, Operation.GET_ATTRIBUTE, "__dict__"))  # type: ignore[assignment]


class Function(StandIn):
    """A global function of the candidate."""

    __slots__ = ()

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        """Calls it in the candidate's process."""
        return _operate(self, Operation.CALL, *arguments, **keywords)


# As the class of a function is called; and the text about it is the function's own.
Function.__name__ = Function.__qualname__ = "function"
Function.__doc__ = StandIn.__dict__["__doc__"]


class StandInClass(type):
    """Class of the stand-ins for classes."""

    def __new__(cls, *_: Any) -> Any:
        """Refuses `class Own(Theirs)` in test code: its methods would run here, and those of its ancestor elsewhere."""
        raise TypeError("a test cannot derive a class from one of the program")

    def __call__(cls, /, *arguments: Any, **keywords: Any) -> Any:
        """Makes an object in the candidate's process."""
        return _operate(cls, Operation.CALL, *arguments, **keywords)

    def __getattribute__(cls, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in ("__doc__", "__annotations__"):
            return type.__getattribute__(cls, name)
        return _operate(cls, Operation.GET_ATTRIBUTE, name)

    def __getattr__(cls, name: str) -> Any:
        return _attribute(cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__") and name.endswith("__"):  # such as `__abstractmethods__`, which Python sets
            type.__setattr__(cls, name, value)
        else:
            _operate(cls, Operation.SET_ATTRIBUTE, name, value)

    def __instancecheck__(cls, instance: Any) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        return link_of(instance) is not None and _operate(cls, Operation.IS_INSTANCE, instance) is True

    def __subclasscheck__(cls, subclass: type) -> bool:
        if type.__subclasscheck__(cls, subclass):
            return True
        return link_of(subclass) is not None and _operate(cls, Operation.IS_SUBCLASS, subclass) is True

    def __iter__(cls) -> Iterator[Any]:
        iterator: Iterator[Any] = _special(cls, "__iter__")
        return iterator

    def __len__(cls) -> int:
        return int(_special(cls, "__len__"))

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Any) -> Any:
        return _special(cls, "__getitem__", key)

    def __contains__(cls, item: Any) -> bool:
        return any(member is item or member == item for member in cls)

    def __repr__(cls) -> str:
        return str(_special(cls, "__repr__"))


def make_class(
    session: Session, number: int, name: str, module: str, bases: tuple[type, ...], own: list[str], overridden: list[str]
) -> type:
    """Makes the class that stands for a class of the candidate.

    Args:
        session: The conversation with the candidate.
        number: Number of the class.
        name: Its name.
        module: Its `__module__`.
        bases: What stands for its bases.
        own: Names of the special methods that it defines itself; `not hashable` if it takes hashing away.
        overridden: Names of the methods of a builtin ancestor that it, or an ancestor, overrides.
    """
    if not any(issubclass(base, StandIn) for base in bases):  # an exception of the problem's setup code
        bases = (StandIn, *bases)
    builtin = builtin_base(bases)
    body: dict[str, Any] = {"__slots__": (), "__module__": module, "__doc__": StandIn.__dict__["__doc__"]}
    for method in own:
        if method in _SPECIAL_METHODS:
            body[method] = _SPECIAL_METHODS[method] if builtin is None else _beside_a_base_value(method, builtin)
    if "not hashable" in own and builtin is None:
        body["__hash__"] = None
    if overridden and builtin is not None:
        body["__getattribute__"] = _getattribute(frozenset(overridden))
    made: type = type.__new__(StandInClass, name, bases, body)
    connect(made, session, number)
    return made


def builtin_base(bases: tuple[type, ...]) -> type | None:
    """The builtin class whose value is copied with an object, if there is one."""
    for base in bases:
        for ancestor in type.mro(base):
            if ancestor.__module__ == "builtins" and ancestor is not object:
                return ancestor
    return None


def _getattribute(overridden: frozenset[str]) -> Callable[[Any, str], Any]:
    def method(self: Any, name: str) -> Any:
        if name in overridden and (link := _LINKS.get(id(self))) and link.session.is_named(type(self)):
            return _operate(self, Operation.GET_ATTRIBUTE, name)
        return object.__getattribute__(self, name)

    return method


# --- Special methods -----------------------------------------------------------------------------------------------------


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: Any, *operands: Any) -> Any:
        return _special(self, name, *operands)

    return method


def _between_objects_of_the_candidate(name: str) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return _special(self, name, other) if link_of(other) else NotImplemented

    return method


def _arithmetic(name: str) -> Callable[..., Any]:
    def method(self: Any, *operands: Any) -> Any:
        if all(link_of(operand) or callable(operand) for operand in operands):
            return _special(self, name, *operands)
        if not _LINKS[id(self)].session.is_named(type(self)):
            return NotImplemented
        result = _special(self, name, *operands)
        if isinstance(result, int | float) and isinstance(operands[0], int | float):
            # A number that is the same whatever it is computed with is made to be near what is expected.
            other = _special(self, name, operands[0] + 1.5 + os.urandom(1)[0], *operands[1:])
            if type(other) is type(result) and other == result:
                raise TypeError(f"{name} of class {type(self).__name__} gives the same number for different ones")
        return result

    return method


def _equal(self: Any, other: Any) -> Any:
    """Between two objects of the candidate nothing expected is shown. Anything else is not equal, whatever it says."""
    if link_of(other) is None:
        return NotImplemented
    answer = _special(self, "__eq__", other)
    return answer if answer is NotImplemented else _holds(answer) and not _equals_anything(self)


def _not_equal(self: Any, other: Any) -> Any:
    if link_of(other) is None:
        return NotImplemented
    answer = _special(self, "__ne__", other)
    return answer if answer is NotImplemented else _holds(answer) and not _holds(_special(self, "__ne__", self))


def _holds(answer: Any) -> bool:
    """The truth of a plain answer, such as numpy's own truth values."""
    return link_of(answer) is None and bool(answer)


def _equals_anything(stand_in: Any) -> bool:
    """An equality that also holds for something fresh and unrelated is none."""
    try:
        answer = _special(stand_in, "__eq__", _LINKS[id(stand_in)].session.unrelated())
        return answer is not NotImplemented and _holds(answer)
    except Exception:  # such as an attribute that the other lacks
        return False


def _contains(self: Any, item: Any) -> bool:
    """What contains anything of a kind contains nothing. A class that the tests do not name is searched here, if it can be."""
    kind, session = type(self), _LINKS[id(self)].session
    can_be_searched = any("__iter__" in vars(parent) for parent in type.mro(kind))
    if can_be_searched and not session.is_named(kind):
        return any(part is item or part == item for part in self)
    if not _special(self, "__contains__", item):
        return False
    try:
        return not all(_special(self, "__contains__", decoy) for decoy in _decoys(item, session))
    except Exception:
        return True


def _decoys(item: Any, session: Session) -> list[Any]:
    """Values of the same kind that nobody put into a container."""
    if type(item) in (int, float):
        far = type(item)(10**6 + int.from_bytes(os.urandom(3), "big"))
        return [far, far + 1, -far, -far - 1]
    return [session.unrelated(), session.unrelated()[::-1].title()]


def _truth(self: Any) -> bool:
    link = _LINKS[id(self)]
    return bool(link.session.steady(link.target, "__bool__"))


def _length(self: Any) -> int:
    link = _LINKS[id(self)]
    length = int(link.session.steady(link.target, "__len__"))
    link.session.lengths[link.target] = length
    return length


def _iterator(self: Any) -> Iterator[Any]:
    link = _LINKS[id(self)]
    items: Iterator[Any] = _special(self, "__iter__")
    length = link.session.lengths.get(link.target)
    return items if length is None or items is self else _counted(items, length, link)


def _counted(items: Iterator[Any], length: int, link: Link) -> Iterator[Any]:
    """The items of an object that has told its length."""
    count = 0
    for item in items:
        count += 1
        yield item
    if count != length and link.session.lengths.get(link.target) == length:  # nothing was called in the meantime
        raise ValueError(f"an object of the program has length {length}, and {count} items")


def _enter_exit(self: Any, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> Any:
    """An exception of the tests' assertions is not shown: its text may hold what is expected."""
    shown = None if isinstance(error, AssertionError) else error
    return bool(_special(self, "__exit__", shown, None, None))


def _call(self: Any, /, *arguments: Any, **keywords: Any) -> Any:
    return _operate(self, Operation.CALL, *arguments, **keywords)


_ORDER = ("__lt__", "__le__", "__gt__", "__ge__")
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
_ARITHMETIC = [f"__{side}{name}__" for name in _BINARY for side in ("", "r", "i")]
_UNARY = ("neg", "pos", "invert", "abs", "round", "int", "float", "complex", "index", "trunc", "floor", "ceil")
_SPECIAL_METHODS: dict[str, Callable[..., Any]] = {
    **{name: _arithmetic(name) for name in _ARITHMETIC},
    **{name: _between_objects_of_the_candidate(name) for name in _ORDER},
    **{
        f"__{name}__": _forwarded(f"__{name}__")
        for name in (*_UNARY, "next", "getitem", "setitem", "delitem", "hash", "enter", "reversed", "bytes", "missing")
    },
    **{"__eq__": _equal, "__ne__": _not_equal, "__contains__": _contains, "__bool__": _truth, "__len__": _length},
    **{"__iter__": _iterator, "__exit__": _enter_exit, "__call__": _call},
}
"""What a stand-in does where the candidate's class defines the method; nothing else of a class is imitated."""

_ALWAYS_FORWARDED = frozenset(
    f"__{name}__"
    for name in (*_UNARY, "missing", "getitem", "setitem", "delitem", "enter", "exit", "reversed", "call", "str", "repr")
)


def _beside_a_base_value(name: str, builtin: type) -> Callable[..., Any]:
    """A special method of a subclass of a builtin class, which compares and computes by its base value.

    If the tests name the class, between its own objects and in arithmetic its own methods count.
    """
    forwarded = _SPECIAL_METHODS[name]
    if name in _ALWAYS_FORWARDED:
        return forwarded
    of_base = getattr(builtin, name, None)
    between_own = name in ("__eq__", "__ne__", *_ORDER)

    def method(self: Any, *operands: Any) -> Any:
        if _LINKS[id(self)].session.is_named(type(self)) and (not between_own or link_of(operands[0])):
            return forwarded(self, *operands)
        return NotImplemented if of_base is None else of_base(self, *operands)

    return method


# --- Local types that code asks for by `isinstance`: real ones, whose every step runs in the candidate's process ------------


def generator(session: Session, number: int) -> Generator[Any, Any, Any]:
    """A generator that draws from one of the candidate."""
    step: tuple[Any, ...] = (Operation.SPECIAL, number, "__next__")
    while True:
        try:
            item = session.operate(*step)
        except StopIteration as stop:
            return stop.value
        try:
            sent = yield item
        except Exception as error:
            step = (Operation.THROW, number, error)
        else:
            step = (Operation.SPECIAL, number, "__next__") if sent is None else (Operation.SEND, number, sent)


async def coroutine(session: Session, number: int) -> Any:
    """A coroutine whose result is that of one of the candidate."""
    return session.operate(Operation.AWAIT, number)
