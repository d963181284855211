"""The checker's side of the conversation with a candidate.

Results come back as plain values (see `wire/values.py`) and are compared here, by builtin types that the candidate cannot
touch. What has no copy comes back as a stand-in (see `stand_ins.py`).
"""

from __future__ import annotations

import _thread
import builtins
import os
import types
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from trl_rrtf.judging.checker import stand_ins
from trl_rrtf.judging.checker.code_of_tests import depth_of_test_code, is_class_of_tests, simple_parameters
from trl_rrtf.judging.checker.library import library_exception
from trl_rrtf.judging.checker.stand_ins import StandIn, link_of
from trl_rrtf.judging.wire.channel import MAX_FRAME_BYTES, Channel, ChannelClosedError
from trl_rrtf.judging.wire.containers import CONTAINERS, MOST_CONNECTED, content_of, copy_into
from trl_rrtf.judging.wire.known_types import BASES, MalformedValueError
from trl_rrtf.judging.wire.protocol import (
    Callback,
    CallbackRaised,
    CallbackReturned,
    CannotCross,
    Operate,
    Operation,
    Raised,
    Returned,
)
from trl_rrtf.judging.wire.values import (
    OWN,
    YOURS,
    CannotCrossError,
    Codec,
    make_exception,
    nearest_builtin,
)

_MAY_CHANGE = {
    *(Operation.CALL, Operation.SET_ATTRIBUTE, Operation.DELETE_ATTRIBUTE, Operation.SEND, Operation.THROW, Operation.AWAIT),
}
_CHANGES_NOTHING = {"__len__", "__bool__", "__iter__", "__next__"}
_MOST_CLASSES_DEEP = 50
_MOST_RAISED = 100
_NOT_METHODS = (types.FunctionType, property, classmethod, staticmethod)


class CandidateGoneError(BaseException):
    """The candidate's process has ended or broken the protocol. No `except Exception` of a test catches it."""


class _LateChange(NamedTuple):
    """What a call has changed in an object of the test, and how deep in the test's functions the call stands."""

    old: Any
    new: Any
    depth: int


class Session(Codec):
    """A conversation with one candidate.

    Args:
        channel: To the candidate's process.
        names: Namespace of the tests, for the classes that setup and test code define.

    Attributes:
        gone: Why no answer will come any more, or None.
        lengths: Number of an object -> the length that it has told since something was last called.
    """

    def __init__(self, channel: Channel, names: dict[str, Any]) -> None:
        self._channel = channel
        self._names = names
        self._shared = {name for name, value in names.items() if is_class_of_tests(value)}
        self._lent: dict[int, Any] = {}
        self._lent_numbers: dict[int, int] = {}
        self._stand_ins: dict[int | str, Any] = {}
        self._roots: dict[type, type] = {}
        self._named: set[type] = set()
        self._connected: dict[int, bytes] = {}
        self._late_changes: list[_LateChange] = []
        self._raised: list[tuple[BaseException, int | None]] = []
        self._describing = 0
        self._variables: dict[str, Any] = {}
        self._operated = False
        # Threads of a test take turns, each for a question and its answer.
        self._talking = _thread.RLock()
        self.gone: CandidateGoneError | None = None
        self.lengths: dict[int | str, int] = {}
        stand_ins.forget_all()

    # --- Names of the candidate ------------------------------------------------------------------------------------------

    def function(self, name: str, number: int | None = None) -> Any:
        """A stand-in for a global function; without its number one that is found by its name when it is called."""
        target = name if number is None else number
        if target not in self._stand_ins:
            self._stand_ins[target] = stand_ins.connect(object.__new__(stand_ins.Function), self, target)
        return self._stand_ins[target]

    def named_class(self, name: str, number: int) -> type:
        """A stand-in for a class that the tests name, so that they know its operators.

        A name that is a function's by all custom is none of those: a program could make a class of the function under test.
        """
        found = self._class(number)
        if name.lstrip("_")[:1].isupper() and name != "Solution":
            self._named.add(found)
        return found

    def is_named(self, kind: type) -> bool:
        """Whether the tests name a class or an ancestor of it."""
        return not self._named.isdisjoint(type.mro(kind))

    # --- Talking ---------------------------------------------------------------------------------------------------------

    def operate(self, operation: Operation, target: str | int, /, *operands: Any, **keywords: Any) -> Any:
        """Lets the candidate's process do something with one of its objects.

        Args:
            operation: What to do.
            target: A global's name, or the number of an object.
            operands: Further operands, handed over as copies or references.
            keywords: Keyword arguments of a call.

        Returns:
            The result.

        Raises:
            CandidateGoneError: No result will come.
            BaseException: What the candidate raised.
        """
        with self._talking:
            return self._operate(operation, target, operands, keywords)

    def _operate(self, operation: Operation, target: str | int, operands: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self.gone is not None:
            raise self.gone
        self._operated = True
        if operation in _MAY_CHANGE or (operation is Operation.SPECIAL and operands[0] not in _CHANGES_NOTHING):
            self.lengths.clear()
        # What an earlier call of this statement has changed is not there yet for the test, but for the next call it is.
        given = [self._as_left(operand) for operand in operands]
        packed = self.pack(given), self._packed_keywords(keywords)
        if sum(map(len, packed)) > MAX_FRAME_BYTES - 1000:
            raise CannotCrossError(f"arguments of more than {MAX_FRAME_BYTES // 2**20} MiB")
        self._send(Operate(operation, target, *packed, self._changes()))
        while True:
            answer = self._receive()
            if isinstance(answer, Callback):
                self._call_back(answer)
            elif isinstance(answer, CannotCross):
                raise CannotCrossError(f"the result holds {answer.reason}")
            elif isinstance(answer, Raised):
                raise self._exception(answer, operands, keywords)
            else:
                return self._result(answer, operands, keywords)

    def _packed_keywords(self, keywords: dict[str, Any]) -> bytes:
        return self.pack({name: self._as_left(value) for name, value in keywords.items()}) if keywords else b""

    def _as_left(self, operand: Any) -> Any:
        return next((late.new for late in reversed(self._late_changes) if late.old is operand), operand)

    def _send(self, message: Any) -> None:
        try:
            self._channel.send(message)
        except ChannelClosedError as error:
            self._lose(str(error))

    def _receive(self) -> Any:
        try:
            return self._channel.receive(Returned, Raised, CannotCross, Callback)
        except ChannelClosedError as error:
            self._lose(str(error))

    def _lose(self, reason: str) -> NoReturn:
        self.gone = CandidateGoneError(reason)
        raise self.gone

    def _result(self, answer: Returned, operands: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        try:
            value = self.unpack(answer.value)
            if answer.container is not None:
                value = self._copy_of_container(answer.container, value)
            changes = self._changes_of(answer, operands, keywords)
        except Exception as error:
            self._lose(f"a malformed answer ({error})")
        self._change(changes, at_once=value is None)  # which is compared with nothing
        return value

    def _exception(self, answer: Raised, operands: tuple[Any, ...], keywords: dict[str, Any]) -> BaseException:
        try:
            error = self.unpack_exception(answer.error)
            changes = self._changes_of(answer, operands, keywords)
        except Exception as malformed:
            self._lose(f"a malformed answer ({malformed})")
        self._change(changes, at_once=True)
        self._raised = [*self._raised[-_MOST_RAISED:], (error, answer.line)]
        return error

    def has_raised(self, error: BaseException) -> bool:
        """Whether an exception came from the candidate."""
        return any(raised is error for raised, _ in self._raised)

    def line_of(self, error: BaseException) -> int | None:
        """The program's line at which an exception of the candidate was raised, if it is known."""
        return next((line for raised, line in self._raised if raised is error), None)

    def _call_back(self, callback: Callback) -> None:
        """The candidate calls a function, or draws from an iterator, that the test gave it."""
        try:
            lent = self._lent[callback.number]
            arguments = self.unpack(callback.arguments)
            keywords = self.unpack(callback.keywords) if callback.keywords else {}
            if type(arguments) is not list or type(keywords) is not dict:
                raise MalformedValueError("arguments that are no list")
        except (KeyError, MalformedValueError) as error:
            self._lose(f"a malformed call ({error})")
        answer: CallbackReturned | CallbackRaised
        try:
            result = lent(*arguments, **keywords) if callable(lent) else next(lent)
            answer = CallbackReturned(self.pack(result), self._changed_arguments(callback, arguments))
        except CandidateGoneError:
            raise
        except BaseException as error:
            answer = CallbackRaised(self.pack_exception(error), self._changed_arguments(callback, arguments))
        self._send(answer)

    def _changed_arguments(self, callback: Callback, arguments: list[Any]) -> bytes:
        """What a function of the test left of its arguments, or nothing if it changed none."""
        try:
            after = self.pack(arguments) if any(isinstance(part, CONTAINERS) for part in arguments) else b""
        except CannotCrossError:
            return b""
        return b"" if after == callback.arguments else after

    # --- What is changed in place ----------------------------------------------------------------------------------------

    def _changes_of(
        self, answer: Returned | Raised, operands: tuple[Any, ...], keywords: dict[str, Any]
    ) -> list[tuple[Any, Any]]:
        """What an operation changed in its arguments and in connected containers, as (old, new).

        It arrives when the statement of the test that made the call has ended: what the statement computes beside the call
        sees the old data, so that no function can rewrite what its result is compared with.
        """
        changes: list[tuple[Any, Any]] = []
        if answer.arguments:
            changes += zip(operands, self.unpack(answer.arguments), strict=True)
        if answer.keywords:
            changed = self.unpack(answer.keywords)
            changes += [(value, changed[name]) for name, value in keywords.items()]
        for number, content in self.unpack(answer.changes) if answer.changes else []:
            if number in self._connected:
                changes.append((self._stand_ins[number], self.unpack(content)))
        return changes

    def _change(self, changes: list[tuple[Any, Any]], *, at_once: bool) -> None:
        if not changes:
            return
        if at_once:
            objects = {id(old) for old, _ in changes}
            self._late_changes = [late for late in self._late_changes if id(late.old) not in objects]
            self._apply(changes)
        else:
            depth = depth_of_test_code()
            self._late_changes += [_LateChange(old, new, depth) for old, new in changes]

    def _apply(self, changes: list[tuple[Any, Any]]) -> None:
        for old, new in changes:
            copy_into(old, new)
        for number in list(self._connected):
            self._connect(number)

    def settle(self) -> None:
        """A statement of the test has ended: what was changed in it arrives."""
        if self._late_changes:
            depth = depth_of_test_code()
            ended = [late for late in self._late_changes if late.depth >= depth]
            self._late_changes = [late for late in self._late_changes if late.depth < depth]
            self._apply([(late.old, late.new) for late in ended])
        if self._operated:
            for name in list(self._variables):
                self._read_variable(name)
            self._operated = False

    def follow_variable(self, name: str) -> None:
        """Gives the tests a variable of the candidate; at the end of each statement it has the value of then."""
        self._variables[name] = None
        self._names.pop(name, None)
        self._read_variable(name)

    def _read_variable(self, name: str) -> None:
        if name in self._names and self._names[name] is not self._variables[name]:
            del self._variables[name]  # the test uses the name for something of its own
            return
        try:
            self._variables[name] = self._names[name] = self.operate(Operation.READ, name)
        except (NameError, CannotCrossError):
            del self._variables[name]
            self._names.pop(name, None)

    def _connect(self, number: int) -> None:
        """Remembers the content of a copy, or gives it up if the test has put something into it that cannot cross."""
        try:
            self._connected[number] = self.pack(content_of(self._stand_ins[number]))
        except CannotCrossError:
            self._connected.pop(number, None)

    def _copy_of_container(self, number: int, value: Any) -> Any:
        """The test's copy of a container of the candidate: the same one each time, with the content of now."""
        known = self._stand_ins.get(number)
        if known is not None and known is not value and type(known) is type(value):
            copy_into(known, value)
            value = known
        self._stand_ins[number] = value
        self._connected.pop(number, None)
        self._connect(number)
        while len(self._connected) > MOST_CONNECTED:
            del self._connected[next(iter(self._connected))]
        return value

    def _changes(self) -> bytes:
        """Connected containers whose copies the test has changed."""
        changed: list[list[Any]] = []
        for number, before in self._connected.items():
            content = content_of(self._stand_ins[number])
            after = self.pack(content)
            if after != before:
                self._connected[number] = after
                self.lengths.clear()
                changed.append([number, after])
        return self.pack(changed) if changed else b""

    # --- What may decide -------------------------------------------------------------------------------------------------

    def steady(self, target: int | str, name: str) -> Any:
        """The answer of a special method that is asked several times, and must be the same each time."""
        answers = [self.operate(Operation.SPECIAL, target, name) for _ in range(2 + os.urandom(1)[0] % 3)]
        if any(answer != answers[0] for answer in answers):
            raise ValueError(f"{name} of an object of the program gives {answers[0]!r} and then something else")
        return answers[0]

    def unrelated(self) -> Any:
        """A value that no object of a program is equal to."""
        return f"unrelated {os.urandom(8).hex()}"

    # --- What references mean here ---------------------------------------------------------------------------------------

    def refer(self, value: Any) -> tuple[int, Any]:
        """A test gives away functions (to be called) and iterators (to be drawn from), and nothing else.

        Their attributes stay here: a function's constants and a generator's frame hold the expected values.
        """
        link = link_of(value)
        if link is not None:
            return YOURS, link.target
        if callable(value) and not isinstance(value, type):
            name = str(getattr(value, "__name__", type(value).__name__))
            about = ["callable", name, getattr(value, "__doc__", None), simple_parameters(value)]
        elif isinstance(value, Iterator):
            about = ["iterator"]
        else:
            return super().refer(value)
        number = self._lent_numbers.setdefault(id(value), len(self._lent) + 1)  # no address: that would be of use
        self._lent[number] = value
        return OWN, [number, *about]

    def resolve(self, code: int, payload: Any) -> Any:
        """A stand-in, the same each time, or the test's own object on its way back."""
        if code == YOURS:
            return self._lent[_number(payload)]
        if code != OWN:
            raise MalformedValueError(f"an unexpected reference (code {code})")
        number, kind, class_number = payload
        if kind == "class":
            return self._class(_number(number))
        if kind == "generator":
            return stand_ins.generator(self, _number(number))
        if kind == "coroutine":
            return stand_ins.coroutine(self, _number(number))
        if number not in self._stand_ins:
            made: Any = object.__new__(self._class(_number(class_number)))
            self._stand_ins[_number(number)] = stand_ins.connect(made, self, number)
        return self._stand_ins[number]

    def with_base(self, base: Any, class_name: str, payload: Any) -> Any:
        """An instance of the candidate's own subclass of a builtin: its base value, with attributes on demand."""
        if payload is None:  # of a class that both sides know
            kind = self.class_for(class_name)
            return base if kind is None or not issubclass(kind, type(base)) else type(base).__new__(kind, base)
        number, _, class_number = payload
        known = self._stand_ins.get(_number(number))
        if known is not None and not isinstance(base, list | dict | set | bytearray):
            return known
        kind = self._class(_number(class_number))
        if not issubclass(kind, type(base)):
            raise MalformedValueError("a base value of another type than its class")
        value = known
        if value is None:
            value = type(base).__new__(kind, base)
            self._stand_ins[number] = stand_ins.connect(value, self, number)
        copy_into(value, base)
        return value

    def known_class(self, name: str) -> type | None:
        """Classes of the setup and test code. Once an instance is given away, the candidate may send others."""
        found = self._names.get(name)
        if not is_class_of_tests(found):
            return None
        self._shared.add(name)
        return found

    def class_for(self, name: str) -> type | None:
        """The class of a received instance: not one that the candidate cannot know."""
        return self.known_class(name) if name in self._shared else None

    def set_attribute(self, instance: Any, name: str, value: Any) -> None:
        """Refuses an attribute that would take the place of a method."""
        if isinstance(getattr(type(instance), name, None), _NOT_METHODS):
            raise MalformedValueError(f"an object of class {type(instance).__name__} whose attribute {name!r} hides a method")
        if name.isupper() and hasattr(type(instance), name):
            raise MalformedValueError(f"an object of class {type(instance).__name__} whose attribute {name!r} hides a constant")
        super().set_attribute(instance, name, value)

    def exception_reference(self, error: BaseException) -> int | str | None:
        """An own exception of the candidate, on its way back."""
        link = link_of(error)
        return None if link is None else link.target

    def received_exception(self, names: list[str], reference: Any, arguments: list[Any], text: str) -> BaseException:
        """A builtin exception, or a stand-in of the candidate's own class."""
        if reference is None or getattr(nearest_builtin(names), "__name__", "") == names[0]:
            return make_exception(nearest_builtin(names), arguments, text)
        number, class_number = reference
        if (shared := self.class_for(names[0])) is not None and issubclass(shared, BaseException):
            own = shared.__new__(shared, *arguments)
            for name, value in self.operate(Operation.GET_ATTRIBUTE, _number(number), "__dict__").items():
                self.set_attribute(own, str(name), value)
            return own
        if (known := self._stand_ins.get(_number(number))) is not None and isinstance(known, BaseException):
            return known
        kind = self._class(_number(class_number))
        if not issubclass(kind, BaseException):
            raise MalformedValueError("an exception whose class is none")
        error = kind.__new__(kind, *arguments)
        self._stand_ins[number] = stand_ins.connect(error, self, number)
        return error

    def _class(self, number: int) -> type:
        """The class that stands for one of the candidate."""
        known = self._stand_ins.get(number)
        if known is None:
            if self._describing > _MOST_CLASSES_DEEP:
                raise MalformedValueError("a class with too many ancestors")
            self._describing += 1
            try:
                known = self._described(number, self.operate(Operation.DESCRIBE, number))
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise MalformedValueError(f"a class that cannot be described ({error})") from None
            finally:
                self._describing -= 1
            self._stand_ins[number] = known
        if not isinstance(known, type):
            raise MalformedValueError("a class that is none")
        return known

    def _described(self, number: int, description: Any) -> type:
        name, module, bases, own, overridden = description
        if (known := library_exception(str(module), str(name))) is not None:
            return known  # such as json.JSONDecodeError: a test may catch it
        if (shared := self.class_for(str(name))) is not None and issubclass(shared, BaseException):
            return shared
        made = tuple(self._root(base) if type(base) is str else self._class(_number(base)) for base in bases)
        lists = [[str(part) for part in parts] for parts in (own, overridden)]
        try:
            return stand_ins.make_class(self, number, str(name), str(module), made, *lists)
        except TypeError:  # ancestors that do not go together here
            return stand_ins.make_class(self, number, str(name), str(module), (StandIn,), *lists)

    def _root(self, name: str) -> type:
        """What stands for a builtin class among the ancestors of a class."""
        builtin = getattr(builtins, name, None)
        if builtin not in BASES and not (isinstance(builtin, type) and issubclass(builtin, BaseException)):
            return StandIn
        if builtin not in self._roots:
            body: dict[str, Any] = {} if issubclass(builtin, BaseException) else {"__slots__": ()}
            self._roots[builtin] = type(name, (StandIn, builtin), body)
        return self._roots[builtin]


def _number(value: Any) -> int:
    if type(value) is not int:
        raise MalformedValueError("a malformed reference")
    return value
