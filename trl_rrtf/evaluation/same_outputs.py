"""Which programs gave the same outputs: numbers within a tolerance, as the judge compares them in tests."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any, Final

from trl_rrtf.judging.checker.comparison import close, same_output
from trl_rrtf.judging.observation import Observation
from trl_rrtf.python_source import parse_program

_NO_TEXT_ERROR = "a value "
"""How the judge's error begins where there is a value and no text for it; an exception's text begins with its class."""


class NoText:
    """There is a value, and nothing to compare it by: a generator, or an object of the program's own without `__repr__`."""


NO_TEXT: Final = NoText()

Output = str | NoText | None
"""A text, `NO_TEXT`, or None where a program failed."""


def output_of(observation: Observation) -> Output:
    """What an observation tells."""
    if observation.value is None and observation.error.startswith(_NO_TEXT_ERROR):
        return NO_TEXT
    return observation.value


def agreements(outputs: Sequence[Sequence[Output]], kind: str, tolerance: float) -> list[float | None]:
    """How far the other candidates agree with each.

    Candidates with the same outputs on all inputs are a cluster. Each gets the size of its cluster, times the share of inputs
    on which the cluster gives an output, of those on which any candidate does: errors are no agreement, and an input that no
    program takes tells nothing.

    An input on which at least half of the values have no text is left out: it tells nothing of those. Elsewhere a value
    without a text agrees with none.

    Args:
        outputs: Per candidate, its output on each input.
        kind: What the inputs are, `"expression"` or `"stdin"`.
        tolerance: How far apart two numbers may be, relative to the larger. Two integers must be equal.

    Returns:
        Per candidate a number from 0 to the number of candidates; None for all where every input is left out.
    """
    by_input = list(zip(*outputs, strict=True))
    kept = [i for i, found in enumerate(by_input) if not _most_have_no_text(found)]
    if by_input and not kept:
        return [None] * len(outputs)
    texts = [_texts([own[i] for i in kept]) for own in outputs]
    telling = sum(any(own[i] is not None for own in texts) for i in range(len(kept)))
    if not telling:
        return [0.0] * len(outputs)
    cluster = _clusters(list(dict.fromkeys(texts)), kind, tolerance)
    members = [cluster[own] for own in texts]
    return [members.count(cluster[own]) * sum(text is not None for text in own) / telling for own in texts]


def _most_have_no_text(found: Sequence[Output]) -> bool:
    without = sum(isinstance(output, NoText) for output in found)
    return without > 0 and without >= sum(isinstance(output, str) for output in found)


_Texts = tuple[str | None, ...]


def _texts(outputs: Sequence[Output]) -> _Texts:
    return tuple(output if isinstance(output, str) else None for output in outputs)


def _clusters(rows: Sequence[_Texts], kind: str, tolerance: float) -> dict[_Texts, int]:
    """Row -> number of its cluster: rows that are the same, directly or by way of others, so that no order matters."""
    texts = {text for row in rows for text in row if text is not None}
    values = {text: text if kind == "stdin" else _value(text) for text in texts}
    same: Callable[[Any, Any, float], bool] = _same_print if kind == "stdin" else _same_value
    cluster = {row: number for number, row in enumerate(rows)}

    def agree(one: str | None, other: str | None) -> bool:
        if one is None or other is None:
            return one is other
        return one == other or same(values[one], values[other], tolerance)

    for i, row in enumerate(rows):
        for other in rows[:i]:
            if cluster[row] != cluster[other] and all(map(agree, row, other)):
                joined, kept = cluster[row], cluster[other]
                cluster.update({each: kept for each, number in cluster.items() if number == joined})
    return cluster


def _same_print(one: str, other: str, tolerance: float) -> bool:
    """Whether one would count as what the other should have printed."""
    return same_output(one.strip(), other.strip(), tolerance) or same_output(other.strip(), one.strip(), tolerance)


def _same_value(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two values are the same but for rounding; 2 and 2.0 are equal, as in a test."""
    if _is_number(one) and _is_number(other):
        if one == other or (isinstance(one, int) and isinstance(other, int)):
            return bool(one == other)
        try:
            return close(float(one), float(other), tolerance)
        except OverflowError:  # an integer beyond every float
            return False
    if type(one) is not type(other):
        return False
    if isinstance(one, set):  # has another order in another process
        return _same_value(sorted(one, key=_order), sorted(other, key=_order), tolerance)
    if isinstance(one, dict):
        one, other = (sorted(items.items(), key=lambda item: _order(item[0])) for items in (one, other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_same_value(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, so that the last bit does not move one; the rest by its text."""
    if _is_number(value) and abs(value) < 1e300:
        return False, float(value), ""
    return True, 0.0, repr(value)


def _value(text: str) -> Any:
    """The value of an observation's text; the text itself where it is none (a digest of a long one)."""
    try:
        [statement] = parse_program(text).body
        if isinstance(statement, ast.Expr):
            return ast.literal_eval(_Literal().visit(statement.value))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        pass
    return text


class _Literal(ast.NodeTransformer):
    """Makes a literal of what a text holds beside literals: `nan`, `inf`, and `array([0.5])` or `Point(x=0.5)`."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float(node.id)) if node.id in ("nan", "inf") else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if not node.args and not node.keywords:  # `set()`
            return node
        named = [ast.Tuple([ast.Constant(keyword.arg), self.visit(keyword.value)]) for keyword in node.keywords]
        name = ast.Constant(f"call of {ast.unparse(node.func)}")
        return ast.Tuple([name, *map(self.visit, node.args), *named])
