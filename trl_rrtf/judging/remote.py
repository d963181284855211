"""What tests see of a candidate: stand-ins in the checker whose calls run in the candidate's process.

Results come back as plain values (see `values.py`) and are compared here, by builtin types that the candidate cannot touch.
What has no copy comes back as a [`Remote`][trl_rrtf.judging.remote.Remote]. Its calls, attributes, iteration, length and items
go to the candidate; comparison, arithmetic and membership against test data never do, since that would show the candidate what
is expected, and let it decide. An instance of a subclass of a builtin compares by its base value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterator
from typing import Any, NoReturn

from trl_rrtf.judging.channel import Channel, ChannelClosedError
from trl_rrtf.judging.values import (
    OWN,
    YOURS,
    CannotCrossError,
    Codec,
    MalformedValueError,
    make_exception,
    nearest_builtin,
)

TEST_MODULE = "tests_of_the_problem"
"""`__name__` of the module in which setup and test code run."""


class CandidateGoneError(BaseException):
    """The candidate's process has ended or broken the protocol. No `except Exception` of a test catches it."""


class Session(Codec):
    """The checker's side of a conversation with one candidate.

    Args:
        channel: To the candidate's process.
        names: Namespace of the tests, for the classes that setup and test code define.
    """

    def __init__(self, channel: Channel, names: dict[str, Any]) -> None:
        self._channel = channel
        self._names = names
        self._lent: dict[int, Any] = {}
        self._exceptions: dict[str, type[BaseException]] = {}
        self.gone: CandidateGoneError | None = None

    # --- Talking ---------------------------------------------------------------------------------------------------------

    def function(self, name: str) -> Remote:
        """A stand-in for a global of the candidate's module."""
        return Remote(self, name, name)

    def operate(self, operation: str, target: str | int, /, *arguments: Any, **keywords: Any) -> Any:
        """Lets the candidate's process do something with one of its objects.

        Args:
            operation: `call`, `len`, `getitem` and so on.
            target: A global's name, or the number of an object.
            arguments: Further operands, handed over as copies or references.
            keywords: Keyword arguments of a call.

        Returns:
            The result.

        Raises:
            CandidateGoneError: No result will come.
            BaseException: What the candidate raised, as the nearest builtin class.
        """
        if self.gone is not None:
            raise self.gone
        self._send("operate", operation, target, self.pack(list(arguments)), self.pack(keywords) if keywords else b"")
        while True:
            answer, *content = self._receive()
            try:
                if answer == "value":
                    return self._result(content, arguments)
                if answer == "raised":
                    raise self._exception(*content)
                if answer == "cannot cross":
                    raise CannotCrossError(f"the result holds {content[0]}")
                if answer == "callback":
                    self._call_back(*content)
                    continue
            except (MalformedValueError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                if getattr(error, "_of_candidate", False):
                    raise
                self._lose(f"a malformed answer ({error})")
            self._lose(f"a malformed answer ({answer!r})")

    def _send(self, *message: Any) -> None:
        try:
            self._channel.send(*message)
        except ChannelClosedError as error:
            self._lose(str(error))

    def _receive(self) -> list[Any]:
        try:
            return self._channel.receive()
        except ChannelClosedError as error:
            self._lose(str(error))

    def _lose(self, reason: str) -> NoReturn:
        self.gone = CandidateGoneError(reason)
        raise self.gone

    def _result(self, content: list[Any], arguments: tuple[Any, ...]) -> Any:
        value, mutated = content
        result = self.unpack(value)
        if result is None and mutated is not None:
            # Only then: a function that returns something must not rewrite what the test compares it with.
            for old, new in zip(arguments, self.unpack(mutated), strict=True):
                copy_into(old, new)
        return result

    def _exception(self, names: list[str], packed: bytes, text: str, line: int | None) -> BaseException:
        error = make_exception(self.foreign_exception(names), self.unpack(packed), str(text))
        error._of_candidate = True  # type: ignore[attr-defined]
        error._line = line if type(line) is int else None  # type: ignore[attr-defined]
        return error

    def _call_back(self, number: int, packed: bytes) -> None:
        """The candidate calls a function, or draws from an iterator, that the test gave it."""
        lent = self._lent[number]
        arguments = self.unpack(packed)
        try:
            result = lent(*arguments) if callable(lent) else next(lent)
            answer: tuple[Any, ...] = ("value", self.pack(result))
        except CandidateGoneError:
            raise
        except BaseException as error:
            answer = ("raised", *self.pack_exception(error))
        self._send(*answer)

    # --- What references mean here ---------------------------------------------------------------------------------------

    def refer(self, value: Any) -> tuple[int, Any]:
        """A test gives away functions (to be called) and iterators (to be drawn from), and nothing else.

        Their attributes stay here: a function's constants and a generator's frame hold the expected values.
        """
        if isinstance(value, Remote):
            return YOURS, value._target
        if isinstance(value, _RemoteBase):
            return YOURS, value._remote._target
        if callable(value) and not isinstance(value, type):
            kind = "callable"
        elif isinstance(value, Iterator):
            kind = "iterator"
        else:
            return super().refer(value)
        self._lent[id(value)] = value
        return OWN, [id(value), kind]

    def resolve(self, code: int, payload: Any) -> Any:
        """A new stand-in, or the test's own object on its way back."""
        if code == OWN:
            number, class_name, exception_names = payload
            if exception_names is not None:
                return self.foreign_exception(exception_names)
            remote = Remote(self, _number(number), str(class_name))
            return _AS_LOCAL[class_name](remote) if class_name in _AS_LOCAL else remote
        if code == YOURS:
            return self._lent[_number(payload)]
        raise MalformedValueError(f"an unexpected reference (code {code})")

    def known_class(self, name: str) -> type | None:
        """Classes of the setup and test code."""
        found = self._names.get(name)
        return found if isinstance(found, type) and found.__module__ == TEST_MODULE else None

    def with_base(self, base: Any, class_name: str, payload: Any) -> Any:
        """An instance of the candidate's own subclass of a builtin: its base value, with attributes on demand."""
        if payload is None:
            kind = self.known_class(class_name)
            return base if kind is None or not issubclass(kind, type(base)) else type(base).__new__(kind, base)
        number, *_ = payload
        return _with_attributes(base, Remote(self, _number(number), class_name))

    def foreign_exception(self, names: list[str]) -> type[BaseException]:
        """A builtin exception, or a stand-in for the candidate's own class, the same each time."""
        nearest = nearest_builtin(names)
        if not names or names[0] == nearest.__name__:
            return nearest
        if (known := self.known_class(names[0])) is not None and issubclass(known, BaseException):
            return known
        name = str(names[0])
        if name not in self._exceptions:
            self._exceptions[name] = type(name, (nearest,), {})
        return self._exceptions[name]


class Remote:
    """A stand-in for an object in the candidate's process.

    Args:
        session: The conversation with the candidate.
        target: The number of the object, or the name of a global.
        class_name: For messages.
    """

    __slots__ = ("_class_name", "_session", "_target")
    _session: Session
    _target: str | int
    _class_name: str

    def __init__(self, session: Session, target: str | int, class_name: str) -> None:
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_class_name", class_name)

    def _operate(self, operation: str, /, *arguments: Any, **keywords: Any) -> Any:
        return self._session.operate(operation, self._target, *arguments, **keywords)

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        """Calls the candidate's function or class."""
        return self._operate("call", *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return self._operate("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._operate("setattr", name, value)

    def __iter__(self) -> Iterator[Any]:
        iterator: Iterator[Any] = self._operate("iter")
        return iterator

    def __next__(self) -> Any:
        return self._operate("next")

    def __len__(self) -> int:
        return int(self._operate("len"))

    def __int__(self) -> int:
        return int(self._operate("int"))

    def __float__(self) -> float:
        return float(self._operate("float"))

    def __bool__(self) -> bool:
        return bool(self._operate("bool"))

    def __str__(self) -> str:
        return str(self._operate("str"))

    def __repr__(self) -> str:
        return str(self._operate("repr"))

    def __getitem__(self, key: Any) -> Any:
        return self._operate("getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._operate("setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        self._operate("delitem", key)

    def __enter__(self) -> Any:
        return self._operate("enter")

    def __exit__(self, *_: Any) -> None:
        self._operate("exit")

    def __instancecheck__(self, instance: Any) -> bool:
        inner = instance._remote if isinstance(instance, _RemoteBase) else instance
        return type(inner) is Remote and bool(self._operate("instancecheck", inner))

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> Any:
        # Two objects of the candidate: nothing expected is shown. Anything else is not equal, whatever the candidate says.
        return self._operate("eq", other) is True if type(other) is Remote else NotImplemented

    def __ne__(self, other: object) -> Any:
        return self._operate("ne", other) is True if type(other) is Remote else NotImplemented


def _between_candidates_objects(name: str) -> Callable[[Remote, object], Any]:
    def method(self: Remote, other: object) -> Any:
        return self._operate(name, other) if type(other) is Remote else NotImplemented

    return method


for _name in ("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "and", "or", "xor"):
    setattr(Remote, f"__{_name}__", _between_candidates_objects(_name))


def _generator(remote: Remote) -> Generator[Any, Any, Any]:
    sent = None
    while True:
        try:
            item = remote._operate("next") if sent is None else remote._operate("send", sent)
        except StopIteration as stop:
            return stop.value
        sent = yield item


async def _coroutine(remote: Remote) -> Any:
    return remote._operate("await")


_AS_LOCAL: dict[str, Callable[[Remote], Any]] = {"generator": _generator, "coroutine": _coroutine}
"""Types that code asks for by `isinstance`: real ones are made here, whose every step runs in the candidate's process."""


class _RemoteBase:
    """Mixed into a copy of a base value: attributes that the builtin type lacks are asked of the candidate."""

    _remote: Remote

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_remote":
            raise AttributeError(name)
        return getattr(self._remote, name)


_SUBCLASSES: dict[type, type] = {
    base: type(f"Remote{base.__name__.title()}", (_RemoteBase, base), {})
    for base in (int, float, str, bytes, list, tuple, dict, set, frozenset)
}


def _with_attributes(base: Any, remote: Remote) -> Any:
    kind = _SUBCLASSES.get(type(base))
    if kind is None:
        raise MalformedValueError("an unknown base type")
    value = kind(base)
    value._remote = remote
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise MalformedValueError("a malformed reference")
    return value


def copy_into(old: Any, new: Any) -> None:
    """Gives an argument the content that the candidate left in its copy; parts keep their identity where shapes agree."""
    if type(old) is not type(new):
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
    elif hasattr(old, "extend") and hasattr(old, "clear"):  # deque
        old.clear()
        old.extend(new)
    elif hasattr(old, "dtype") and getattr(old, "shape", ()) == getattr(new, "shape", None) and old.shape:
        operator.setitem(old, ..., new)
    elif type(old).__module__ == TEST_MODULE:
        for name, value in vars(new).items():
            setattr(old, name, _merged(getattr(old, name, None), value))


def _merged(before: Any, after: Any) -> Any:
    if type(before) is type(after) and isinstance(before, list | dict | set):
        copy_into(before, after)
        return before
    return after
