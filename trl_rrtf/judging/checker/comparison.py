"""What counts as the same output or result, as the graders of published problems have it."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

_ABSOLUTE = 1e-9
"""How far apart two numbers may be that are nearly zero."""


def same_output(text: str, expected: str, tolerance: float) -> bool:
    """Whether a program printed what it should have.

    Args:
        text: What it printed.
        expected: What it should have printed.
        tolerance: How far apart two numbers may be, relative to the larger; 0 compares the text, line by line, white space at
            the ends of lines and of the whole aside. Else blank lines do not count either, and integers must be equal.
    """
    if _lines(text) == _lines(expected):
        return True
    if not tolerance:
        return False
    found, wanted = text.split(), expected.split()
    return len(found) == len(wanted) and all(
        one == other or _same_number(one, other, tolerance) for one, other in zip(found, wanted, strict=True)
    )


def plain_output(text: str) -> str:
    """An output without what no comparison sees: white space at the ends of lines and of the whole."""
    return "\n".join(_lines(text))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _same_number(one: str, other: str, tolerance: float) -> bool:
    numbers = []
    for token in (one, other):
        if "_" in token:
            return False  # a number in Python's source alone
        try:
            numbers.append(float(token))
        except ValueError:
            return False
    if other.lstrip("+-").isdigit():  # an integer is no approximation
        return numbers[0] == numbers[1] if not one.lstrip("+-").isdigit() else _digits(one) == _digits(other)
    return close(numbers[0], numbers[1], tolerance)


def _digits(token: str) -> tuple[bool, str]:
    """Sign and digits, compared as text: numbers of a million digits would take long to read."""
    digits = token.lstrip("+-").lstrip("0")
    return token.startswith("-") and bool(digits), digits


def close(one: float, other: float, tolerance: float) -> bool:
    """Whether two numbers are the same but for rounding; not-a-number is only itself."""
    return (one != one and other != other) or math.isclose(one, other, rel_tol=tolerance, abs_tol=_ABSOLUTE if tolerance else 0)


def same_result(result: Any, expected: Any, tolerance: float) -> bool:
    """Whether a call returned what it should have, as JSON would have it: tuples are lists, keys are text.

    Args:
        result: What it returned.
        expected: Decoded JSON.
        tolerance: How far apart two numbers may be of which one is no integer, relative to the larger.
    """
    if type(result).__module__ == "numpy" and hasattr(result, "tolist"):
        result = result.tolist()
    if isinstance(result, list | tuple):
        return (
            isinstance(expected, list)
            and len(result) == len(expected)
            and all(same_result(one, other, tolerance) for one, other in zip(result, expected, strict=True))
        )
    if isinstance(result, dict):
        if not isinstance(expected, dict) or len(result) != len(expected):
            return False
        keyed = {_json_key(key): part for key, part in result.items()}
        return keyed.keys() == expected.keys() and all(same_result(keyed[key], expected[key], tolerance) for key in keyed)
    if tolerance and type(expected) is float and type(result) in (int, float):
        return close(float(result), float(expected), tolerance)
    return bool(result == expected)


def _json_key(key: Any) -> Any:
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return json.dumps(key) if isinstance(key, int | float) else key


def let_nothing_be_close_to_an_empty_array() -> None:
    """Numpy takes an empty array for close to every number: there is nothing in it that is not."""
    import numpy
    import numpy.testing

    if hasattr(numpy.allclose, "refuses_empty"):
        return
    for module, names, fails in (
        (numpy, ("allclose", "isclose"), False),
        (
            numpy.testing,
            ("assert_allclose", "assert_almost_equal", "assert_array_almost_equal", "assert_array_equal", "assert_equal"),
            True,
        ),
    ):
        for name in names:
            setattr(module, name, _not_for_empty(getattr(module, name), fails))


def _not_for_empty(compare: Any, fails: bool) -> Any:
    import numpy

    @functools.wraps(compare)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        named = [keywords[name] for name in ("a", "b", "actual", "desired", "x", "y") if name in keywords]
        one, other = [*arguments, *named, None, None][:2]
        if _is_empty(one) != _is_empty(other):
            if fails:
                raise AssertionError("one of the two is empty")
            return numpy.False_
        return compare(*arguments, **keywords)

    wrapper.refuses_empty = True  # type: ignore[attr-defined]
    return wrapper


def _is_empty(value: Any) -> bool:
    import numpy

    return isinstance(value, list | tuple | numpy.ndarray) and numpy.size(value) == 0
