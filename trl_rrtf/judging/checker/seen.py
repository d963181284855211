"""The values that the first failing assertion of a test saw, as bounded text."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trl_rrtf.judging.checker.canonical import NotShownError, canonical
from trl_rrtf.judging.checker.remote import CandidateGoneError

_MOST_NAMES = 5
_LONGEST_VARIABLE = 200
"""Characters of a variable's text; longer ones are left out, they are rarely what explains a failure."""


class Seen(NamedTuple):
    """What an assertion saw.

    Attributes:
        sides: The values that it compared, as text; None for one that is not known.
        names: Text of the variables that it used.
    """

    sides: tuple[str | None, ...] = ()
    names: Mapping[str, str] = {}


NOTHING_SEEN = Seen()


def values_seen(told: Mapping[int, Any], names: Sequence[str], trace: types.TracebackType | None) -> Seen:
    """Writes down values.

    Args:
        told: Side of the assertion -> its value.
        names: What it read.
        trace: Where it failed.
    """
    sides = [text_of(told[side]) if side in told else None for side in range(max(told, default=-1) + 1)]
    variables: dict[str, str] = {}
    frame = None if trace is None else trace.tb_frame
    for name in names:
        if frame is None or len(variables) == _MOST_NAMES:
            break
        value = frame.f_locals.get(name, frame.f_globals.get(name))
        if value is None or callable(value) or isinstance(value, types.ModuleType):
            continue
        text = _variable_text(value)
        if text is not None and len(text) <= _LONGEST_VARIABLE:
            variables[name] = text
    return Seen(tuple(sides), variables)


def text_of(value: Any) -> str | None:
    """A value's text, or what it is where it has none; None where the candidate, which writes it, is lost meanwhile."""
    kind = type(value).__name__
    try:
        return canonical(value)
    except NotShownError as error:
        reason = str(error)
        if reason.startswith("a value of type ") and not reason.startswith(f"a value of type {kind},"):
            return f"a value of type {kind}, and in it {reason}"
        return reason
    except CandidateGoneError:
        return None
    except BaseException as error:  # of the candidate's own `__repr__`, which may raise `SystemExit` too
        return f"a value of type {kind}, whose text raises {type(error).__name__}"


def _variable_text(value: Any) -> str | None:
    try:
        return canonical(value)
    except BaseException:  # as above; a variable is only an explanation
        return None
