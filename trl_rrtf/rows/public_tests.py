"""Which tests of a problem a model may see: those that come first, as contests show them in the statement."""

from __future__ import annotations

from trl_rrtf.errors import RowError
from trl_rrtf.rows import checks
from trl_rrtf.rows.records import Problem, UnitTest

COLUMN = "public_tests"
"""The column of a problem row that says how many of its tests, from the first on, are public."""


def public_tests(problem: Problem, default: int | None = None) -> list[UnitTest]:
    """The tests of a problem that a model may see; all others are hidden.

    Args:
        problem: Its column `public_tests` says how many of its tests, from the first on, are public.
        default: How many are where the row has no such column, or null there (all, where it has fewer); None for none.

    Returns:
        The public tests, perhaps none.

    Raises:
        RowError: The column holds no count, or one beyond the problem's tests.
    """
    where = f"problem {problem.problem_id!r}"
    count = problem.extra.get(COLUMN)
    if count is None:
        return problem.tests[: default or 0]
    if isinstance(count, list | dict):
        raise RowError(
            where,
            COLUMN,
            f"expected how many of `tests`, from the first on, are public, got {checks.shown(count)}; put the public tests "
            "first in `tests` and write their number here, or rename the column (CodeContests' own rows are read as they are)",
        )
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise RowError(where, COLUMN, f"expected a whole number of tests, 0 or more, got {checks.shown(count)}")
    if count > len(problem.tests):
        raise RowError(
            where, COLUMN, f"says that {count} tests are public, and the problem has {len(problem.tests)}; correct the number"
        )
    return problem.tests[:count]
