"""Every message between the processes of the judge, once, with the types of its fields.

A message is a named tuple. `Channel.receive` takes the classes that may come, and checks the fields: what breaks the protocol
never reaches the code that works with messages. The parties are

- the **judge**, in the user's process;
- the **checker**, which holds the tests;
- the **server**, which forks a process per candidate;
- the **candidate**'s process.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, NamedTuple

RECORDER = "<recorder>"
"""The name under which test code finds the object that records its assertions; no program can have it."""


class ProtocolError(Exception):
    """A message that no honest process sends."""


# --- Judge to checker ----------------------------------------------------------------------------------------------------


class FunctionTest(NamedTuple):
    """A test of functions.

    Attributes:
        kind: `assert`, `check` or `call`; `expression` for one that is observed and judges nothing.
        code: Code object of the test code (or expression), by `marshal`; nothing for `call`.
        arguments: JSON list of positional arguments, for `call`.
        result: JSON of what must be returned, for `call`.
        assertions: How many assertions stand in the code.
    """

    kind: str
    code: bytes
    arguments: str
    result: str
    assertions: int


class ProgramTest(NamedTuple):
    """A run of a whole program."""

    stdin: str
    stdout: str


class ProblemTests(NamedTuple):
    """A problem, to judge programs by.

    Attributes:
        entry_point: Name of the function or class under test, if any.
        setup_code: Source that runs before the candidate, in both processes.
        trusted: Code objects of the prompt's helpers and the setup code, by `marshal`.
        functions: Fields of each `FunctionTest`.
        programs: Fields of each `ProgramTest`.
        written: Number of assertions as they stand in the code.
        expected: Names that the tests read and may find in the candidate.
        imports: Names that the tests read without importing them: name -> `[module]` or `[module, attribute]`.
        tells: Whether the values at the first failure are asked for.
    """

    entry_point: str | None
    setup_code: str
    trusted: list[bytes]
    functions: list[list[Any]]
    programs: list[list[Any]]
    written: int
    expected: list[str]
    imports: dict[str, list[str]]
    tells: bool


class JudgeProgram(NamedTuple):
    """A program, and the number of the candidate server that shall run it."""

    program: str
    server: int


class ObserveProgram(NamedTuple):
    """A program to observe: what expressions come to, or what it prints for inputs; and the number of its server."""

    program: str
    server: int


class EndProblem(NamedTuple):
    """No more programs of this problem."""


# --- Checker to judge ----------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """A verdict.

    Attributes:
        outcome: Number of the outcome.
        passed: Assertions that held.
        total: Assertions in all.
        seconds: Wall-clock time.
        detail: What went wrong first.
        checker_ends: Whether the next program of this problem needs a new checker.
        failed_test: Number of the test that went wrong first, those of functions before those of programs; -1 if none is known.
        failed_line: Line of its code at which it did, 0 if none is known.
        failed_by: What was raised there, or why no answer came; nothing if an assertion did not hold.
        failed_sides: The values that it compared, as text, or the result of a call or the output of a program; None for one
            that is not known. None at all where they are not asked for.
        failed_names: The variables that it used, as text.
    """

    outcome: int
    passed: int
    total: int
    seconds: float
    detail: str
    checker_ends: bool
    failed_test: int = -1
    failed_line: int = 0
    failed_by: str = ""
    failed_sides: list[str | None] | None = None
    failed_names: dict[str, str] | None = None


class Observed(NamedTuple):
    """What a program gave, one entry per expression or input.

    Attributes:
        values: Canonical text of each value, or the standard output; None where there is none.
        errors: Why there is none, else nothing.
        checker_ends: Whether the next program of this problem needs a new checker.
    """

    values: list[str | None]
    errors: list[str]
    checker_ends: bool


class CannotJudge(NamedTuple):
    """The problem's own code fails."""

    reason: str


class JudgeFailed(NamedTuple):
    """No verdict; the program may be judged again.

    Attributes:
        reason: What failed.
        candidate_killed: Whether somebody else killed the candidate.
    """

    reason: str
    candidate_killed: bool


class ComparisonHung(NamedTuple):
    """The checker used up its processor time on what the candidate sent."""


# --- Checker to server ---------------------------------------------------------------------------------------------------

RUN, STOP, LOST = b"r", b"s", b"l"
"""Run a candidate (comes with a socket), end it, find out why it ended. Each run gets one `STOP` or `LOST`."""


# --- Server to judge and to checker --------------------------------------------------------------------------------------


class ServerReady(NamedTuple):
    """A candidate server has contained itself: layer -> `on`, or why it is missing."""

    layers: dict[str, str]


class Ended(NamedTuple):
    """How a candidate's process ended.

    Attributes:
        status: Wait status, or -1 if the server had to kill it.
        limit: `time`, `memory` or nothing: the limit for which the server killed it.
        starved: Whether the limit came while the machine gave the process too little of its processors to say anything.
        seconds: Processor time of the process.
    """

    status: int
    limit: str
    starved: bool
    seconds: float


# --- Checker to candidate ------------------------------------------------------------------------------------------------


class LoadFunctions(NamedTuple):
    """Load a program whose functions will be called.

    Attributes:
        program: Its text.
        setup_code: Source that runs before it.
        entry_point: The function or class under test, if it has a name.
        all_names: Whether the tests may read other names of the program.
    """

    program: str
    setup_code: str
    entry_point: str | None
    all_names: bool


class RunProgram(NamedTuple):
    """Run a whole program; the descriptors of its standard input and output follow."""

    program: str
    setup_code: str


class Operation(StrEnum):
    """What the checker may do with an object of the candidate."""

    CALL = "call"
    GET_ATTRIBUTE = "getattr"
    SET_ATTRIBUTE = "setattr"
    DELETE_ATTRIBUTE = "delattr"
    COPY = "copy"
    DEEP_COPY = "deepcopy"
    SPECIAL = "special"
    """A special method of its class, by name."""
    SEND = "send"
    """Into a generator."""
    THROW = "throw"
    """An exception into a generator."""
    AWAIT = "await"
    IS_INSTANCE = "isinstance"
    IS_SUBCLASS = "issubclass"
    READ = "read"
    """The value of a global."""
    DESCRIBE = "describe"
    """What its class is like: name, module, bases, own special methods, overridden methods."""


class Operate(NamedTuple):
    """Do something with an object.

    Attributes:
        operation: An `Operation`.
        target: Number of the object, or name of a global.
        arguments: Packed list of further operands.
        keywords: Packed dictionary of keyword arguments, or nothing.
        changes: Packed list of `(number, packed content)` of the candidate's containers that the test has changed, or nothing.
    """

    operation: str
    target: int | str
    arguments: bytes
    keywords: bytes
    changes: bytes


class CallbackReturned(NamedTuple):
    """What a function of the test returned, and the arguments as it left them, or nothing if it changed none."""

    value: bytes
    arguments: bytes


class CallbackRaised(NamedTuple):
    """What a function of the test raised, packed, and the arguments as above."""

    error: bytes
    arguments: bytes


# --- Candidate to checker ------------------------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """The program is loaded. Lists the entry point alone where the tests read no other name.

    Attributes:
        functions: Name -> number of each of its functions.
        classes: The same for its classes.
        variables: Names of its other globals.
        library: Names of what it took from the standard library -> `[module]` or `[module, attribute]`.
    """

    functions: dict[str, int]
    classes: dict[str, int]
    variables: list[str]
    library: dict[str, list[str]]


class CompileFailed(NamedTuple):
    """`compile()` refuses the program."""

    detail: str


class ProgramRaised(NamedTuple):
    """The program raised while it ran from top to bottom."""

    detail: str


class ProgramRan(NamedTuple):
    """A whole program ran to its end."""


class Returned(NamedTuple):
    """The result of an operation.

    Attributes:
        value: Packed.
        container: Number of the list, dictionary, set or bytearray that the result is, if it stays connected to its copy.
        arguments: Packed arguments as the operation left them, or nothing if it changed none.
        keywords: The same for keyword arguments.
        changes: Packed list of `(number, packed content)` of connected containers that have changed, or nothing.
    """

    value: bytes
    container: int | None
    arguments: bytes
    keywords: bytes
    changes: bytes


class Raised(NamedTuple):
    """An operation raised.

    Attributes:
        error: The exception, packed.
        line: The program's line, if it is known.
        arguments: As in `Returned`.
        keywords: As in `Returned`.
        changes: As in `Returned`.
    """

    error: bytes
    line: int | None
    arguments: bytes
    keywords: bytes
    changes: bytes


class CannotCross(NamedTuple):
    """A result that has no copy and may not be referred to."""

    reason: str


class Callback(NamedTuple):
    """Call a function, or draw from an iterator, that the test gave away."""

    number: int
    arguments: bytes
    keywords: bytes


# --- From and to plain lists ---------------------------------------------------------------------------------------------


def from_parts(parts: Any, kinds: tuple[type, ...]) -> Any:
    """The message that a received list is.

    Args:
        parts: What was unpacked: a list of the name of the message's class and its fields.
        kinds: The classes that may come.

    Raises:
        ProtocolError: It is none of them, or a field has another type.
    """
    if type(parts) is not list or not parts:
        raise ProtocolError("a malformed message")
    name, *fields = parts
    for kind in kinds:
        if kind.__name__ == name:
            checks = _FIELD_CHECKS[kind]
            if len(fields) != len(checks) or not all(check(field) for check, field in zip(checks, fields, strict=True)):
                raise ProtocolError(f"a malformed message of kind {name}")
            return kind(*fields)
    raise ProtocolError(f"an unexpected message of kind {str(name)[:40]!r}")


def _check(annotation: Any) -> Callable[[Any], bool]:
    """Whether a value is of an annotated type: plain types, unions, lists and dictionaries of them."""
    if annotation is Any:
        return lambda value: True
    if isinstance(annotation, UnionType):
        checks = [_check(part) for part in typing.get_args(annotation)]
        return lambda value: any(check(value) for check in checks)
    origin, parts = typing.get_origin(annotation), [_check(part) for part in typing.get_args(annotation)]
    if origin is list:
        return lambda value: type(value) is list and all(map(parts[0], value))
    if origin is dict:
        return lambda value: type(value) is dict and all(map(parts[0], value)) and all(map(parts[1], value.values()))
    kind = NoneType if annotation is None else annotation
    return lambda value: type(value) is kind


# Read here, once: every process that is forked later has them.
_FIELD_CHECKS = {
    kind: [_check(annotation) for annotation in typing.get_type_hints(kind).values()]
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
}
