"""What a choice among n candidates is worth: the chosen program beside one sample and beside all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from trl_rrtf.evaluation.statistics import Interval, mean_with_interval, paired_difference


@dataclass(frozen=True)
class Tally:
    """How a problem went.

    Attributes:
        problem_id: The problem.
        candidates: Candidates that could be chosen (n); references and what could not be judged are none.
        drafts: How many of them are no repairs.
        passed: How many pass all tests.
        drafts_passed: How many of the drafts do.
        chosen_passes: Whether the chosen candidate does.
    """

    problem_id: str
    candidates: int
    drafts: int
    passed: int
    drafts_passed: int
    chosen_passes: bool


@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """Shares of problems, each with its 95 % bootstrap interval over the problems.

    Attributes:
        select: `select@n`: the chosen program passes all tests. A pass@1: one program is handed in.
        one_sample: pass@1 of one candidate as it is drawn, estimated from all of them; repairs are not drawn, and do not count.
        difference: `select` minus `one_sample`, paired by problem.
        any: pass@n: some candidate passes. No choice gets more.
        smallest: Fewest candidates of a problem.
        largest: Most.
    """

    select: Interval
    one_sample: Interval
    difference: Interval
    any: Interval
    smallest: int
    largest: int

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> Self:
        """Counts.

        Args:
            tallies: One per problem, at least one.
        """
        chosen = [float(tally.chosen_passes) for tally in tallies]
        one = [tally.drafts_passed / tally.drafts for tally in tallies]
        return cls(
            select=mean_with_interval(chosen),
            one_sample=mean_with_interval(one),
            difference=paired_difference(one, chosen),
            any=mean_with_interval([float(tally.passed > 0) for tally in tallies]),
            smallest=min(tally.candidates for tally in tallies),
            largest=max(tally.candidates for tally in tallies),
        )

    @property
    def n(self) -> str:
        """The number of candidates: `8`, or `5-8` where problems differ."""
        return f"{self.largest}" if self.smallest == self.largest else f"{self.smallest}-{self.largest}"

    def table(self) -> dict[str, Any]:
        """What to show."""
        points = [f"{100 * value:+.1f}" for value in (self.difference.mean, self.difference.low, self.difference.high)]
        return {
            f"select@{self.n}": self.select,
            "pass@1 of one sample": self.one_sample,
            "difference": f"{points[0]} points [{points[1]}, {points[2]}]",
            f"pass@{self.n} (any)": self.any,
        }

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        found: dict[str, Any] = {
            name: Interval(**value) if isinstance(value, dict) else value for name, value in values.items()
        }
        return cls(**found)
