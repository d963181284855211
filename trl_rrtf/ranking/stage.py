"""The `rank` stage: judged groups in, ranked groups and their data card out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import settings_of
from trl_rrtf.ranking.card import GroupStatistics, beside, require_card_folder, write_card
from trl_rrtf.ranking.config import RankArguments, RankConfig
from trl_rrtf.ranking.scores import ranked_or_reason
from trl_rrtf.rows.files import check_rows, fingerprint, stream_rows
from trl_rrtf.rows.records import JudgedGroup, RankedGroup
from trl_rrtf.rows.stage import RowStage
from trl_rrtf.rows.summary import Summary


@dataclasses.dataclass(kw_only=True)
class RankSummary(Summary):
    """What the `rank` stage did.

    Attributes:
        groups: Judged groups.
        kept: Ranked groups.
        dropped: Why groups were dropped, the most frequent first -> groups.
        outcomes: Outcome, the most frequent first -> candidates of the ranked groups.
        teacher_student_pairs: Pairs with the teacher's score higher.
        groups_without_pair: Ranked groups without such a pair.
        judge: How the groups were judged, for the data card: the settings that the judge left beside its rows.
        output: The ranked groups.
    """

    groups: int
    kept: int
    dropped: dict[str, int]
    outcomes: dict[str, int]
    teacher_student_pairs: int
    groups_without_pair: int
    judge: dict[str, Any]
    output: str

    def table(self) -> dict[str, Any]:
        """What to show: label -> value."""
        return {
            "groups": self.groups,
            "kept": self.kept,
            **{f"dropped: {reason}": count for reason, count in self.dropped.items()},
            "candidates by outcome": _counts(self.outcomes),
            "teacher-student pairs": self.teacher_student_pairs,
            "groups without such a pair": self.groups_without_pair,
            "output": self.output,
        }


def run_rank(arguments: RankArguments, config: RankConfig) -> RankSummary:
    """Ranks every group, one at a time.

    Returns:
        Groups kept, dropped and why, candidates per outcome, ordered teacher-student pairs.

    Raises:
        RowError: A row breaks the format.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: No group is left, the output is the input, or the card would replace somebody else's.
    """
    summary = _RankStage(arguments, config).run()
    if arguments.card is not None:
        write_card(arguments.output, arguments.card, name=Path(arguments.output).stem, license=arguments.license)
    return summary


class _RankStage(RowStage[RankSummary]):
    name = "rank"
    summary_type = RankSummary

    def __init__(self, arguments: RankArguments, config: RankConfig) -> None:
        super().__init__(arguments, config)
        self._arguments, self._config = arguments, config
        self._dropped: Counter[str] = Counter()

    def check(self) -> int:
        if self._arguments.card is not None:
            require_card_folder(self._arguments.card)
        left = beside(self._arguments.input, ".settings.json")
        self._judge = {name: value for name, value in left.items() if name not in ("stage", "input")}
        self._num_groups = check_rows(self._arguments.input, JudgedGroup)
        return self._num_groups

    def settings(self) -> dict[str, Any]:
        return {"input": fingerprint(self._arguments.input), **settings_of(self._config)}

    def rows(self, done: int) -> Iterator[RankedGroup]:
        kept = 0
        for group in stream_rows(self._arguments.input, JudgedGroup):  # all of them: those that are dropped are counted
            ranked = ranked_or_reason(group, self._config)
            if isinstance(ranked, str):
                self._dropped[ranked] += 1
            else:
                kept += 1
                if kept > done:
                    yield ranked
            self.progress.update()

    def summary(self, rows_file: Path) -> RankSummary:
        dropped = dict(self._dropped.most_common())
        if self._dropped.total() == self._num_groups:
            raise ConfigError(
                f"`input`: none of the {self._num_groups} groups is left (dropped: {_counts(dropped)}); sample more, or from a "
                "teacher"
            )
        statistics = GroupStatistics.of(rows_file)
        return RankSummary(
            groups=self._num_groups,
            kept=statistics.groups,
            dropped=dropped,
            outcomes=dict(statistics.outcomes.most_common()),
            teacher_student_pairs=statistics.teacher_student_pairs,
            groups_without_pair=statistics.groups_without_pair,
            judge=self._judge,
            output=self._arguments.output,
        )


def _counts(counter: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.items())
