"""The process of one candidate: runs the program, then what the checker asks for. It never holds a test or an expected value.

Nothing here has to be trusted once the program runs: a program that takes over its process can only send other values.
"""

from __future__ import annotations

import _thread
import contextlib
import copy
import os
import socket
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from trl_rrtf.judging.candidate.loading import compiled, describe, line_of
from trl_rrtf.judging.candidate.whole_program import run_as_main
from trl_rrtf.judging.wire.channel import MAX_FRAME_BYTES, Channel, ChannelClosedError
from trl_rrtf.judging.wire.containers import CONTAINERS, LARGEST_CONNECTED, MOST_CONNECTED, content_of, copy_into, is_array
from trl_rrtf.judging.wire.process import fix_seeds
from trl_rrtf.judging.wire.protocol import (
    Callback,
    CallbackRaised,
    CallbackReturned,
    CannotCross,
    Loaded,
    LoadFunctions,
    Operate,
    Operation,
    ProgramRaised,
    Raised,
    Returned,
    RunProgram,
)
from trl_rrtf.judging.wire.values import (
    OWN,
    YOURS,
    CannotCrossError,
    Codec,
    make_exception,
    nearest_builtin,
)

_MODULE_NAME = "candidate"
_NEVER_CHANGE = (type(None), bool, int, float, complex, str, bytes, range)
_MOST_NAMES = 2000


def run(end: socket.socket) -> NoReturn:
    """Runs one candidate: loads the program that comes over the socket, serves the checker, and ends with it."""
    status = 1
    try:
        first = Channel(end, exact=True).receive(LoadFunctions, RunProgram)  # descriptors may follow
        if isinstance(first, RunProgram):
            status = run_as_main(Channel(end), first)
        else:
            _Candidate(Channel(end)).serve(first)
    except ChannelClosedError:
        pass
    finally:
        os._exit(status)


class _Candidate(Codec):
    """The loaded program, and the references that were given and received."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._module = types.ModuleType(_MODULE_NAME)
        self._names = self._module.__dict__
        self._lent: dict[int, Any] = {}
        self._from_tests: dict[int, Any] = {}
        self._connected: dict[int, bytes] = {}
        self._setup_classes: set[str] = set()
        self._made: dict[str, type] = {}
        self._talking = _thread.RLock()  # the module `threading` would make every fork slower
        self._operations_running = 0

    def serve(self, load: LoadFunctions) -> None:
        """Loads the program, then answers until the checker ends."""
        if not self._load(load):
            return
        while True:
            self._operate(self._channel.receive(Operate))

    # --- Loading ---------------------------------------------------------------------------------------------------------

    def _load(self, load: LoadFunctions) -> bool:
        sys.modules[_MODULE_NAME] = self._module
        code = compiled(load.program, self._channel)
        if code is None:
            return False
        try:
            if load.setup_code:
                exec(compile(load.setup_code, "<setup>", "exec", dont_inherit=True), self._names)
                self._setup_classes = {name for name, value in self._names.items() if _is_class_of(value, _MODULE_NAME)}
            fix_seeds()
            exec(code, self._names)
            fix_seeds()
        except BaseException as error:
            self._channel.send(ProgramRaised(describe(error)))
            return False
        names = [name for name in self._names if type(name) is str and (load.all_names or name == load.entry_point)]
        self._channel.send(self._loaded(names[:_MOST_NAMES]))
        return True

    def _loaded(self, names: list[str]) -> Loaded:
        loaded = Loaded({}, {}, [], {})
        for name, value in ((name, self._names[name]) for name in names):
            if issubclass(type(value), type):
                loaded.classes[name] = self._number(value)
            elif callable(value):
                loaded.functions[name] = self._number(value)
            else:
                loaded.variables.append(name)
            with contextlib.suppress(BaseException):
                if (place := _place_in_library(value)) is not None:
                    loaded.library[name] = place
        return loaded

    # --- Operations ------------------------------------------------------------------------------------------------------

    def _operate(self, message: Operate) -> None:
        arguments: list[Any] = []
        keywords: dict[str, Any] = {}
        self._operations_running += 1
        try:
            arguments = self.unpack(message.arguments)
            keywords = self.unpack(message.keywords) if message.keywords else {}
            self._take_changes(message.changes)
            subject = self._lent[message.target] if isinstance(message.target, int) else self._global(message.target)
            if message.operation == Operation.DESCRIBE:
                result: Any = self._describe(subject)
            else:
                result = _OPERATIONS[message.operation](subject, *arguments, **keywords)
        except BaseException as error:
            answer: Any = self._raised(error, message, arguments, keywords)
        else:
            answer = self._returned(result, subject, message, arguments, keywords)
        with self._talking:
            self._operations_running -= 1
            if sum(len(part) for part in answer if isinstance(part, bytes)) > MAX_FRAME_BYTES - 1000:
                answer = CannotCross(f"more than {MAX_FRAME_BYTES // 2**20} MiB")
            self._channel.send(answer)

    def _returned(
        self, result: Any, subject: Any, message: Operate, arguments: list[Any], keywords: dict[str, Any]
    ) -> Returned | CannotCross:
        try:
            packed = self.pack(result)
            # What a plain function returns is new, as a rule.
            fresh = message.operation == Operation.CALL and isinstance(subject, types.FunctionType)
            container = None if fresh else self._connect(result)
            return Returned(packed, container, *self._changed(message, arguments, keywords))
        except CannotCrossError as error:
            return CannotCross(str(error))
        except BaseException as error:
            return CannotCross(f"something that raised while it was packed ({type(error).__name__})")

    def _raised(
        self, error: BaseException, message: Operate, arguments: list[Any], keywords: dict[str, Any]
    ) -> Raised | CannotCross:
        line = line_of(error)
        try:
            return Raised(self.pack_exception(error), line, *self._changed(message, arguments, keywords))
        except BaseException as another:
            return CannotCross(f"an exception that raised while it was packed ({type(another).__name__})")

    def _changed(self, message: Operate, arguments: list[Any], keywords: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
        """Arguments, keyword arguments and connected containers that are no longer as they were; nothing for each that is."""
        changes = []
        for number, before in self._connected.items():
            content = content_of(self._lent[number])
            after = self._packed_again(content, before)
            if after != before:
                self._connected[number] = after
                changes.append([number, after])
        return (
            self._packed_if_changed(arguments, arguments, message.arguments),
            self._packed_if_changed(keywords, list(keywords.values()), message.keywords),
            self.pack(changes) if changes else b"",
        )

    def _packed_if_changed(self, value: Any, parts: list[Any], before: bytes) -> bytes:
        if all(type(part) in _NEVER_CHANGE for part in parts):
            return b""
        after = self._packed_again(value, before)
        return b"" if after == before else after

    def _packed_again(self, value: Any, before: bytes) -> bytes:
        try:
            return self.pack(value)
        except CannotCrossError:
            return before

    def _connect(self, result: Any) -> int | None:
        """Remembers a container whose copy the checker gets, so that what either side changes in it reaches the other."""
        if not (issubclass(type(result), CONTAINERS) or is_array(result)):
            return None
        packed = self.pack(content_of(result))
        if len(packed) > LARGEST_CONNECTED:
            return None
        number = self._number(result)
        self._connected.pop(number, None)
        self._connected[number] = packed
        while len(self._connected) > MOST_CONNECTED:
            del self._connected[next(iter(self._connected))]
        return number

    def _take_changes(self, packed: bytes) -> None:
        """Puts into own containers what the test has changed in its copies."""
        for number, content in self.unpack(packed) if packed else []:
            own = self._lent[number]
            copy_into(own, self.unpack(content))
            if number in self._connected:
                self._connected[number] = self._packed_again(content_of(own), self._connected[number])

    def _global(self, name: str) -> Any:
        if name in self._names:
            return self._names[name]
        solution = self._names.get("Solution")  # LeetCode's style: the function under test is a method of this class
        if isinstance(solution, type) and hasattr(solution, name):
            return getattr(solution(), name)
        raise NameError(f"name {name!r} is not defined")

    def _describe(self, kind: type) -> list[Any]:
        """What a stand-in for a class is made of.

        Returns:
            Name, module, bases (names of builtin classes, numbers of others), names of the special methods of its own, names of
            the methods of a builtin ancestor that it or another ancestor overrides.
        """
        bases = [base.__name__ if _is_builtin(base) else self._number(base) for base in kind.__bases__]
        own = [name for name in kind.__dict__ if type(name) is str and name.startswith("__")]
        if kind.__dict__.get("__hash__", ...) is None:
            own.remove("__hash__")
            own.append("not hashable")
        ancestors = type.mro(kind)
        overridden = [
            name
            for name in dict.fromkeys(name for parent in ancestors if not _is_builtin(parent) for name in parent.__dict__)
            if type(name) is str
            and not name.startswith("__")
            and any(name in parent.__dict__ for parent in ancestors if _is_builtin(parent))
        ]
        return [str(kind.__name__), str(kind.__module__), bases, own, overridden]

    # --- What references mean here ---------------------------------------------------------------------------------------

    def _number(self, value: Any) -> int:
        """The number of an own object; it lives as long as this process, so that the number stays its own."""
        self._lent[id(value)] = value
        return id(value)

    def refer(self, value: Any) -> tuple[int, Any]:
        """Everything of the candidate may be referred to; what the checker lent goes back as its own."""
        if (number := _LENT.get(id(value))) is not None:
            return YOURS, number
        if issubclass(type(value), type):
            return OWN, [self._number(value), "class", 0]
        kind = _LOCAL_KINDS.get(type(value), "object")
        return OWN, [self._number(value), kind, self._number(type(value))]

    def resolve(self, code: int, payload: Any) -> Any:
        """A function or iterator of the test, or an own object on its way back."""
        if code == YOURS:
            return self._lent[payload] if isinstance(payload, int) else self._global(payload)
        number, kind, *about = payload
        if number in self._from_tests:
            return self._from_tests[number]
        if kind == "iterator":
            lent: Any = _LentIterator(self, number)
        else:
            lent = _lent_function(self, number, *about)
        _LENT[id(lent)] = number
        self._from_tests[number] = lent  # the same each time, and kept, so that no other object gets its `id`
        return lent

    def known_class(self, name: str) -> type | None:
        """Classes of the setup code, as the program left (or replaced) them, and those made for the test's objects."""
        if name in self._setup_classes:
            found = self._names.get(name)
            return found if isinstance(found, type) else None
        return self._made.get(name)

    def class_for(self, name: str) -> type:
        """The class of an object of the test; one without methods when the program knows none of that name."""
        known = self.known_class(name)
        if known is None:
            known = self._made[name] = type(name, (), {})
        return known

    def with_base(self, base: Any, class_name: str, payload: Any) -> Any:
        """An instance of a class of the setup code that extends a builtin, such as a named tuple."""
        kind = self.known_class(class_name)
        if kind is None or not issubclass(kind, type(base)):
            return base
        return kind(base) if hasattr(kind, "__members__") else type(base).__new__(kind, base)

    def exception_reference(self, error: BaseException) -> list[int] | None:
        """Number and class of an own exception, whose attributes the test may read."""
        return None if _is_builtin(type(error)) else [self._number(error), self._number(type(error))]

    def received_exception(self, names: list[str], reference: Any, arguments: list[Any], text: str) -> BaseException:
        """An own exception on its way back, or one of the test, of the program's class of that name if it has one."""
        if reference is not None:
            found = self._lent[reference]
            return found if isinstance(found, BaseException) else Exception(text)
        known = self._names.get(names[0])
        own = isinstance(known, type) and issubclass(known, BaseException)
        return make_exception(known if own else nearest_builtin(names), arguments, text)  # type: ignore[arg-type]

    def call_back(self, number: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Asks the checker for the result of a function that the test gave.

        Raises:
            RuntimeError: Nothing of the program is being called, so nobody waits for such a question.
            BaseException: What the function raised.
        """
        packed = self.pack(list(arguments)), self.pack(keywords) if keywords else b""
        with self._talking:
            if not self._operations_running:
                raise RuntimeError("a function of the tests can be called only while the tests call the program")
            self._channel.send(Callback(number, *packed))
            while True:
                answer = self._channel.receive(Operate, CallbackReturned, CallbackRaised)
                if isinstance(answer, Operate):  # the test's function uses an object of the program
                    self._operate(answer)
                    continue
                if answer.arguments:
                    for argument, changed in zip(arguments, self.unpack(answer.arguments), strict=True):
                        copy_into(argument, changed)
                if isinstance(answer, CallbackRaised):
                    raise self.unpack_exception(answer.error)
                return self.unpack(answer.value)


_LENT: dict[int, int] = {}
"""`id` of each stand-in for an object of the test -> its number there."""
_LOCAL_KINDS = {types.GeneratorType: "generator", types.CoroutineType: "coroutine"}


class _LentIterator:
    def __init__(self, owner: _Candidate, number: int) -> None:
        self._owner, self._number = owner, number

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._owner.call_back(self._number, (), {})


def _lent_function(
    owner: _Candidate, number: int, name: str, doc: str | None, parameters: list[str] | None
) -> Callable[..., Any]:
    """A function with the name and, where they are simple, the parameters of the test's function."""

    def lent(*arguments: Any, **keywords: Any) -> Any:
        return owner.call_back(number, arguments, keywords)

    function = lent
    if parameters is not None:
        listed = ", ".join(parameters)
        made: dict[str, Any] = {"_lent": lent}
        exec(f"def function({listed}): return _lent({listed})", made)
        function = made["function"]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _special(value: Any, name: str, /, *operands: Any) -> Any:
    """A special method, looked up as Python does it: on the class."""
    if name == "__getitem__" and issubclass(type(value), type) and not hasattr(type(value), name):
        return value.__class_getitem__(*operands)
    if name == "__missing__" and not hasattr(type(value), name):
        raise KeyError(*operands)
    if name == "__exit__" and operands[0] is not None:
        operands = (type(operands[0]), operands[0], None)
    return getattr(type(value), name)(value, *operands)


def _awaited(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    Operation.CALL: lambda function, /, *arguments, **keywords: function(*arguments, **keywords),
    Operation.GET_ATTRIBUTE: getattr,
    Operation.SET_ATTRIBUTE: setattr,
    Operation.DELETE_ATTRIBUTE: delattr,
    Operation.COPY: copy.copy,
    Operation.DEEP_COPY: copy.deepcopy,
    Operation.SPECIAL: _special,
    Operation.SEND: lambda generator, value: generator.send(value),
    Operation.THROW: lambda generator, error: generator.throw(error),
    Operation.AWAIT: _awaited,
    Operation.IS_INSTANCE: lambda kind, value: isinstance(value, kind),
    Operation.IS_SUBCLASS: lambda kind, other: issubclass(other, kind),
    Operation.READ: lambda value: value,
}
"""What may be done with an object, given it and further operands. Made before the fork, like all that can be."""


def _is_builtin(kind: type) -> bool:
    import builtins

    return getattr(builtins, kind.__name__, None) is kind


def _place_in_library(value: Any) -> list[str] | None:
    """Module, or module and name, of something that the program took from the standard library or numpy."""
    if isinstance(value, types.ModuleType):
        place = [str(value.__name__)]
    else:
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if type(module) is not str or type(name) is not str or not callable(value):
            return None
        place = [module, name]
    first = place[0].split(".")[0]
    return place if first in sys.stdlib_module_names or first == "numpy" else None


def _is_class_of(value: Any, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module
