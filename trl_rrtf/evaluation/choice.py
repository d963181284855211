"""The choice itself: which candidate of a group is best by several signals, and the row that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trl_rrtf.errors import JudgeError
from trl_rrtf.evaluation.best_of_n import Tally
from trl_rrtf.evaluation.signals import Contest, Opinion
from trl_rrtf.rows.files import stream_rows
from trl_rrtf.rows.records import Candidate, CandidateGroup, Outcome

COLUMN = "selection"
"""The column that says why a candidate was chosen."""


def choosable(group: CandidateGroup, source: str | None = None) -> list[int]:
    """Positions of the candidates that can be chosen: no references, and none that the judge could not judge.

    Args:
        group: The candidates.
        source: Whose alone, or None for those of students and teachers.
    """
    return [
        i
        for i, candidate in enumerate(group.candidates)
        if is_from(candidate, source) and (candidate.verdict is None or candidate.verdict.outcome is not Outcome.INFRASTRUCTURE)
    ]


def is_from(candidate: Candidate, source: str | None) -> bool:
    """Whether a choice among the candidates of a source (None: students and teachers) has this one to choose."""
    return candidate.source == source if source else candidate.source != "reference"


def is_own_column(value: Any) -> bool:
    """Whether a row's column `selection` is what this stage writes, and no column of the user's own."""
    return value is None or (isinstance(value, dict) and {"index", "of", "narrowed_by", "signals"} <= value.keys())


class Choice:
    """The choice in one group, while signals narrow it down.

    A signal is asked of those candidates alone that the earlier ones have left, and only while these are different programs:
    AlphaCode too clusters what has passed the public tests, and what costs time is not run for nothing.

    Args:
        group: All candidates.
        seen: The same as the signals see it.
        num_public: How many tests are public where the row does not say.
        source: Whose candidates alone, or None for those of students and teachers.
    """

    def __init__(self, group: CandidateGroup, seen: CandidateGroup, num_public: int | None, source: str | None = None) -> None:
        self._group, self._seen, self._num_public, self._source = group, seen, num_public, source
        self._choosable = choosable(group, source)
        self._left = list(self._choosable)
        self._narrowed_by: list[str] = []
        self._signals: dict[str, list[float | None] | None] = {}
        self._require_candidates()

    @property
    def is_open(self) -> bool:
        """Whether different programs are left."""
        return self._num_programs() > 1

    def contest(self) -> Contest:
        """What is left, for a signal."""
        return Contest.of(self._seen, self._left, self._num_public)

    def skip(self, name: str) -> None:
        """Notes that a signal was not asked."""
        self._signals[name] = None

    def narrow(self, name: str, opinion: Opinion) -> None:
        """Keeps the best of what is left; None is below every number.

        Raises:
            JudgeError: The judge failed at each of them.
        """
        values = dict(zip(self._left, opinion.values, strict=True))
        self._signals[name] = [values.get(i) for i in range(len(self._group.candidates))]
        unjudged = {self._left[i] for i in opinion.unjudged}
        self._choosable = [i for i in self._choosable if i not in unjudged]
        self._left = [i for i in self._left if i not in unjudged]
        self._require_candidates()
        before = self._num_programs()
        ranks = {i: (value is not None, value or 0.0) for i, value in values.items() if i not in unjudged}
        highest = max(ranks.values())
        self._left = [i for i in self._left if ranks[i] == highest]
        if self._num_programs() < before:
            self._narrowed_by.append(name)

    def chosen(self) -> CandidateGroup:
        """The group with the first of the best alone, and why.

        Its column `selection` holds

        - `index`: the position of the chosen candidate among those of the input;
        - `of`, `left_out`, `references`, `other_sources`: how many could be chosen, and how many could not: the judge failed,
          they are references, or of a source that was not asked for;
        - `narrowed_by`: the signals that ruled out some program;
        - `tied`: different programs that are best in all signals; the first one drawn is chosen;
        - `signals`: signal -> a number per candidate of the input, null for those that the earlier signals had ruled out; null
          where one program was left, so that it was not asked;
        - `drafts`: how many of those that could be chosen are no repairs;
        - `passed`, `drafts_passed`: how many of these pass all tests; null where they have no verdicts;
        - `repair_of`: which candidate of the input the chosen one repairs, or null.
        """
        candidates = [self._group.candidates[i] for i in self._choosable]
        drafts = [candidate for candidate in candidates if candidate.repair_of is None]
        references = sum(candidate.source == "reference" for candidate in self._group.candidates)
        of_source = sum(is_from(candidate, self._source) for candidate in self._group.candidates)
        chosen = self._group.candidates[self._left[0]]
        selection: dict[str, Any] = {
            "index": self._left[0],
            "of": len(candidates),
            "left_out": of_source - len(candidates),
            "references": references,
            "other_sources": len(self._group.candidates) - references - of_source,
            "narrowed_by": self._narrowed_by,
            "tied": self._num_programs(),
            "signals": self._signals,
            "drafts": len(drafts),
            "passed": _number_passed(candidates),
            "drafts_passed": _number_passed(drafts),
            "repair_of": chosen.repair_of,
        }
        alone = replace(chosen, repair_of=None)  # what it repairs is not in its group
        return replace(self._group, candidates=[alone], extra={**self._group.extra, COLUMN: selection})

    def _num_programs(self) -> int:
        return len({self._group.candidates[i].program for i in self._left})

    def _require_candidates(self) -> None:
        if not self._left:
            raise JudgeError(
                f"no candidate of problem {self._group.problem_id} could be judged; run again with `--overwrite true`"
            )


def _number_passed(candidates: Sequence[Candidate]) -> int | None:
    """How many pass all tests; None where one has no verdict."""
    verdicts = [candidate.verdict for candidate in candidates]
    if None in verdicts:
        return None
    return sum(verdict is not None and verdict.outcome is Outcome.PASSED for verdict in verdicts)


def tallies(selected: str | Path) -> list[Tally]:
    """How each problem went, from the output of the stage over judged candidates.

    Raises:
        JudgeError: All candidates of a problem that could be judged are repairs, so that one sample tells nothing.
    """
    found = []
    for group in stream_rows(selected, CandidateGroup):
        selection, verdict = group.extra[COLUMN], group.candidates[0].verdict
        if not selection["drafts"]:
            raise JudgeError(f"no candidate of problem {group.problem_id} but repairs could be judged; judge them again")
        passes = verdict is not None and verdict.outcome is Outcome.PASSED
        counts = {name: selection[name] for name in ("drafts", "passed", "drafts_passed")}
        found.append(Tally(group.problem_id, selection["of"], **counts, chosen_passes=passes))
    return found
