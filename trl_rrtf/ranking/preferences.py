"""Teacher feedback between programs that pass: named rules, each a cost per candidate (smaller is preferred)."""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Callable, Sequence

from trl_rrtf.errors import ConfigError
from trl_rrtf.rows.records import Candidate


def _run_time(candidates: Sequence[Candidate]) -> list[float]:
    """Only a factor of two over the fastest counts: smaller differences are noise of the machine."""
    times = [candidate.verdict.seconds for candidate in candidates if candidate.verdict is not None]
    fastest = max(min(times), 1e-3)
    return [math.floor(math.log2(max(time, fastest) / fastest)) for time in times]


def _length(candidates: Sequence[Candidate]) -> list[float]:
    """Python tokens, so that names, comments and layout cost nothing."""
    return [_num_tokens(candidate.program) for candidate in candidates]


_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def _num_tokens(program: str) -> int:
    return sum(token.type not in _LAYOUT for token in tokenize.generate_tokens(io.StringIO(program).readline))


def _teacher_log_prob(candidates: Sequence[Candidate]) -> list[float]:
    values = [candidate.teacher_log_prob for candidate in candidates]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise ConfigError(
            "`passed_preference`: teacher_log_prob needs the column `teacher_log_probs`; add it with "
            "`trl-rrtf teacher-logprobs` before the candidates are judged"
        )
    return [-value for value in known]


PREFERENCES: dict[str, Callable[[Sequence[Candidate]], list[float]] | None] = {
    "none": None,
    "run_time": _run_time,
    "length": _length,
    "teacher_log_prob": _teacher_log_prob,
}
"""Name -> costs of the passing candidates of a group; None where all are equal, as in the paper."""


def preference_bonuses(rule: str, weight: float, candidates: Sequence[Candidate]) -> list[float]:
    """Extra scores of the passing candidates of a group, spread evenly by rank.

    Args:
        rule: A key of [`PREFERENCES`][trl_rrtf.ranking.preferences.PREFERENCES].
        weight: Extra score of the most preferred; the least preferred gets 0, equal ones get the same.
        candidates: The passing candidates, judged.

    Returns:
        One number per candidate.

    Raises:
        ConfigError: The rule needs something that the rows do not have.
    """
    costs_of = PREFERENCES[rule]
    if costs_of is None or not candidates:
        return [0.0] * len(candidates)
    costs = costs_of(candidates)
    places = {cost: place for place, cost in enumerate(sorted(set(costs)))}
    if len(places) == 1:
        return [0.0] * len(costs)
    return [weight * (1 - places[cost] / (len(places) - 1)) for cost in costs]
