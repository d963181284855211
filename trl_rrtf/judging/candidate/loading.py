"""A program's text becomes code; an exception becomes words."""

from __future__ import annotations

import types

from trl_rrtf.judging.wire.channel import Channel
from trl_rrtf.judging.wire.protocol import CompileFailed

_FILE_NAME = "<candidate>"
_COMPILE_ERRORS = (SyntaxError, ValueError, UnicodeEncodeError, OverflowError, RecursionError, MemoryError)


def compiled(program: str, channel: Channel) -> types.CodeType | None:
    """The program's code; the checker is told if there is none."""
    try:
        return compile(program, _FILE_NAME, "exec", dont_inherit=True)
    except _COMPILE_ERRORS as error:
        channel.send(CompileFailed(describe(error)))
        return None


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
