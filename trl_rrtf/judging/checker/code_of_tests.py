"""What is known of the tests' own code: where it runs, its classes, its functions."""

from __future__ import annotations

import sys
import types
from typing import Any

TEST_MODULE = "tests_of_the_problem"
"""`__name__` of the module in which setup and test code run."""
_FILES_OF_TESTS = ("<test>", "<setup>")


def depth_of_test_code() -> int:
    """How many functions of the tests are running."""
    depth, frame = 0, sys._getframe(1)
    while frame is not None:
        depth += frame.f_code.co_filename in _FILES_OF_TESTS
        frame = frame.f_back  # type: ignore[assignment]
    return depth


def line_of_tests(trace: types.TracebackType | None, *, innermost: bool = False) -> int:
    """The line of test code at which something was raised: of the outermost function of the tests, or of the innermost.

    Returns:
        Its number, or 0 if no test code was running.
    """
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILES_OF_TESTS[0] and (innermost or not line):
            line = trace.tb_lineno or 0
        trace = trace.tb_next
    return line


def simple_parameters(function: Any) -> list[str] | None:
    """Names of a function's parameters, if all of them are positional and have no default."""
    code = getattr(function, "__code__", None)
    if not isinstance(function, types.FunctionType) or code is None:
        return None
    variadic = code.co_flags & 0x0C  # *args, **kwargs
    if variadic or code.co_kwonlyargcount or function.__defaults__:
        return None
    return list(code.co_varnames[: code.co_argcount])


def is_class_of_tests(value: Any) -> bool:
    """Whether a value is a class that setup or test code defines."""
    return isinstance(value, type) and value.__module__ == TEST_MODULE
