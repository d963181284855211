"""The process of one candidate: runs the program, then what the checker asks for. It never holds a test or an expected value.

Nothing here has to be trusted once the program runs: a program that takes over its process can only send other values.
"""

from __future__ import annotations

import contextlib
import io
import operator
import os
import socket
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from trl_rrtf.judging.channel import MAX_FRAME_BYTES, Channel, ChannelClosedError
from trl_rrtf.judging.values import OWN, YOURS, CannotCrossError, Codec, class_names

_MODULE_NAME = "candidate"
_FILE_NAME = "<candidate>"
_COMPILE_ERRORS = (SyntaxError, ValueError, UnicodeEncodeError, OverflowError, RecursionError, MemoryError)
_MUTABLE = (list, dict, set)
_MOST_NAMES = 2000

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, /, *arguments, **keywords: function(*arguments, **keywords),
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager: manager.__exit__(None, None, None),
    "send": lambda generator, value: generator.send(value),
    "await": lambda coroutine: _awaited(coroutine),
    "instancecheck": lambda kind, value: isinstance(value, kind),
    "and": operator.and_,
    "or": operator.or_,
    **{kind.__name__: kind for kind in (bool, float, int, str)},
    **{function.__name__: function for function in (getattr, iter, len, next, repr, setattr)},
    **{
        name: getattr(operator, name)
        for name in (
            *("getitem", "setitem", "delitem", "eq", "ne", "lt", "le", "gt", "ge"),
            *("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "xor"),
        )
    },
}
"""What the checker may ask for: name -> function of the object and further operands."""


def run(end: socket.socket) -> NoReturn:
    """Runs one candidate: loads the program that comes over the socket, serves the checker, and ends with it."""
    channel = Channel(end)
    status = 1
    try:
        kind, program, setup_code, stdin = channel.receive()
        if kind == "main":
            status = _run_as_main(channel, program, setup_code, stdin)
        else:
            _Candidate(channel).serve(program, setup_code)
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
        self._setup_classes: set[str] = set()
        self._made: dict[str, type] = {}

    def serve(self, program: str, setup_code: str) -> None:
        """Loads the program, then answers until the checker ends."""
        if not self._load(program, setup_code):
            return
        while True:
            operation, target, arguments, keywords = self._channel.receive()[1:]
            self._operate(operation, target, self.unpack(arguments), self.unpack(keywords) if keywords else {})

    def _load(self, program: str, setup_code: str) -> bool:
        sys.modules[_MODULE_NAME] = self._module
        code = _compiled(program, self._channel)
        if code is None:
            return False
        try:
            if setup_code:
                exec(compile(setup_code, "<setup>", "exec", dont_inherit=True), self._names)
                self._setup_classes = {name for name, value in self._names.items() if _is_class_of(value, _MODULE_NAME)}
            fix_seeds()
            exec(code, self._names)
            fix_seeds()
        except BaseException as error:
            self._channel.send("import error", describe(error))
            return False
        named = [(name, value) for name, value in self._names.items() if type(name) is str][:_MOST_NAMES]
        # Tests may catch the program's own exceptions, which takes a class and not a stand-in.
        exceptions = {name: class_names(value) for name, value in named if _is_exception_class(value)}
        self._channel.send("loaded", [name for name, _ in named], exceptions)
        return True

    def _operate(self, operation: str, target: str | int, arguments: list[Any], keywords: dict[str, Any]) -> None:
        try:
            subject = self._lent[target] if isinstance(target, int) else self._global(target)
            result = _OPERATIONS[operation](subject, *arguments, **keywords)
        except BaseException as error:
            self._send("raised", *self.pack_exception(error), line_of(error))
            return
        try:
            packed = self.pack(result)
            mutated = self._mutated(arguments) if result is None and operation == "call" else None
        except CannotCrossError as error:
            self._send("cannot cross", str(error))
        except BaseException as error:
            self._send("cannot cross", f"something that raised while it was packed ({type(error).__name__})")
        else:
            self._send("value", packed, mutated)

    def _send(self, kind: str, *content: Any) -> None:
        if sum(len(part) for part in content if isinstance(part, bytes)) > MAX_FRAME_BYTES - 1000:
            kind, content = "cannot cross", (f"more than {MAX_FRAME_BYTES // 2**20} MiB",)
        self._channel.send(kind, *content)

    def _global(self, name: str) -> Any:
        if name not in self._names:
            raise NameError(f"name {name!r} is not defined")
        return self._names[name]

    def _mutated(self, arguments: list[Any]) -> bytes | None:
        """The arguments again, if they may have changed."""
        if any(isinstance(argument, _MUTABLE) or hasattr(argument, "__dict__") for argument in arguments):
            with contextlib.suppress(CannotCrossError):
                return self.pack(arguments)
        return None

    # --- What references mean here ---------------------------------------------------------------------------------------

    def refer(self, value: Any) -> tuple[int, Any]:
        """Everything of the candidate may be referred to; what the checker lent goes back as its own."""
        if isinstance(value, _Lent):
            return YOURS, value.number
        self._lent[id(value)] = value
        return OWN, [id(value), type(value).__name__, class_names(value) if _is_exception_class(value) else None]

    def resolve(self, code: int, payload: Any) -> Any:
        """A function or iterator of the test, or an own object on its way back."""
        if code == YOURS:
            return self._lent[payload] if isinstance(payload, int) else self._global(payload)
        number, kind = payload
        return (_LentFunction if kind == "callable" else _LentIterator)(self, number)

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

    def call_back(self, number: int, arguments: list[Any]) -> Any:
        """Asks the checker for the result of a function that the test gave.

        Raises:
            BaseException: What the function raised.
        """
        self._channel.send("callback", number, self.pack(arguments))
        answer, *content = self._channel.receive()
        if answer == "value":
            return self.unpack(content[0])
        names, packed, text = content
        kind = self.foreign_exception(names)
        try:
            error = kind(*self.unpack(packed))
        except TypeError:
            error = Exception(text)
        raise error


class _Lent:
    """A stand-in for an object of the test."""

    def __init__(self, owner: _Candidate, number: int) -> None:
        self._owner = owner
        self.number = number


class _LentFunction(_Lent):
    def __call__(self, *arguments: Any) -> Any:
        return self._owner.call_back(self.number, list(arguments))


class _LentIterator(_Lent):
    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._owner.call_back(self.number, [])


def _run_as_main(channel: Channel, program: str, setup_code: str, stdin: str) -> int:
    """A whole program with standard input and output; returns its exit status.

    The output is a file without a name. The checker gets its descriptor before the program runs, and reads it when all is over.
    """
    code = _compiled(program, channel)
    if code is None:
        return 1
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    with open("stdin", "w+", encoding="utf-8", errors="surrogateescape", newline="") as given, open("stdout", "w+b") as target:
        os.unlink("stdin")
        os.unlink("stdout")
        given.write(stdin)
        given.seek(0)
        channel.send("output")
        socket.send_fds(channel.socket, [b"o"], [target.fileno()])
        os.dup2(given.fileno(), 0)
        os.dup2(target.fileno(), 1)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8", errors="surrogateescape")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8", errors="surrogateescape"
    )
    status = 0
    try:
        exec(compile(setup_code, "<setup>", "exec", dont_inherit=True), module.__dict__)
        fix_seeds()
        exec(code, module.__dict__)
        sys.stdout.flush()
    except SystemExit as error:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        if error.code not in (None, 0):
            channel.send("raised", describe(error))
            return 1
    except BaseException as error:
        channel.send("raised", describe(error))
        return 1
    channel.send("ran")
    return status


def _compiled(program: str, channel: Channel) -> types.CodeType | None:
    """The program's code; the checker is told if there is none."""
    try:
        return compile(program, _FILE_NAME, "exec", dont_inherit=True)
    except _COMPILE_ERRORS as error:
        channel.send("compile error", describe(error))
        return None


def fix_seeds() -> None:
    """The same random numbers each time, for the generators that are loaded."""
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(Exception):
                module.seed(0)


def _awaited(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def _is_class_of(value: Any, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module


def _is_exception_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def line_of(error: BaseException) -> int | None:
    """The program's line at which an exception was raised, or None."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILE_NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def describe(error: BaseException) -> str:
    """Class, text and the program's line of an exception."""
    try:
        text = str(error)[:300]
    except BaseException:
        text = ""
    line = line_of(error)
    name = type(error).__name__
    return f"{name}{': ' if text else ''}{text}{'' if line is None else f', line {line}'}"
