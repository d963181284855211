"""From verdicts and sources to scores and ranked groups: the only place where facts become numbers.

The paper (arXiv 2307.14936, section 3.2) gives four classes, a tie rule and a filter, but no numbers. Here:

| outcome | score |
|---|---|
| `compile_error` | 0 |
| `runtime_error` | 1 |
| `failed` (ran through, passed nothing) | `failed_score`, by default 1.5 |
| `partial` | 2, plus `partial_credit` * passed / total |
| `passed` | 3, plus up to `preference_weight` by `passed_preference` |
| a teacher's (or reference's) candidate | plus `teacher_bonus`, by default 0.25 |
| `infrastructure` | none: the candidate is left out |
"""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.ranking.config import PARTIAL_SCORE, PASSED_SCORE, RankConfig
from trl_rrtf.ranking.preferences import preference_bonuses
from trl_rrtf.rows.prompts import render_prompt
from trl_rrtf.rows.records import TEACHER_SOURCES, Candidate, JudgedGroup, Outcome, RankedCandidate, RankedGroup, Verdict
from trl_rrtf.rows.repairs import renumbered

KEPT = "kept"


@dataclass
class _Scored:
    """A candidate that could be judged."""

    candidate: Candidate
    verdict: Verdict
    score: float

    @property
    def share(self) -> float:
        """Share of the tests that it passes."""
        return self.verdict.passed / self.verdict.total if self.verdict.total else 0.0


def score(verdict: Verdict, source: str, config: RankConfig) -> float:
    """The score of a candidate.

    Args:
        verdict: What happened. `INFRASTRUCTURE` has no score.
        source: Where the candidate came from.
        config: The numbers.

    Raises:
        ConfigError: The verdict is `INFRASTRUCTURE`.
    """
    by_outcome = {
        Outcome.COMPILE_ERROR: 0.0,
        Outcome.RUNTIME_ERROR: 1.0,
        Outcome.FAILED: config.failed_score,
        Outcome.PARTIAL: PARTIAL_SCORE,
        Outcome.PASSED: PASSED_SCORE,
    }
    if verdict.outcome not in by_outcome:
        raise ConfigError("`verdict`: a failure of the judge says nothing about the candidate; leave the candidate out")
    value = by_outcome[verdict.outcome]
    if verdict.outcome is Outcome.PARTIAL:
        value += config.partial_credit * verdict.passed / verdict.total
    return value + (config.teacher_bonus if source in TEACHER_SOURCES else 0.0)


def rank_group(group: JudgedGroup, config: RankConfig) -> tuple[RankedGroup | None, str]:
    """Ranks the candidates of one problem.

    Args:
        group: The judged candidates.
        config: How to score and what to keep.

    Returns:
        The ranked group and `"kept"`, or None and why the group is dropped.

    Raises:
        ConfigError: A preference needs a column that the group does not have.
    """
    ranked = ranked_or_reason(group, config)
    return (None, f"dropped: {ranked}") if isinstance(ranked, str) else (ranked, KEPT)


def ranked_or_reason(group: JudgedGroup, config: RankConfig) -> RankedGroup | str:
    """The ranked group, or why the group is dropped; see [`rank_group`][trl_rrtf.rank_group].

    Raises:
        ConfigError: A preference needs a column that the group does not have.
    """
    judged = _scored(group, config)
    reason = _reason_to_drop(judged, config)
    if reason is not None:
        return reason
    selected = _selected(judged, config)
    if len(selected) < 2:
        return "fewer than two different candidates"
    if config.drop_teacher_below_student and _teacher_is_below(selected):
        return "teacher below student"
    if config.require_signal and len({entry.score for entry in selected}) == 1:
        return "all scores are equal"

    prompt = render_prompt(group, config.prompt_style)
    is_chat = not isinstance(prompt, str)
    candidates = [
        RankedCandidate(
            completion=[{"role": "assistant", "content": entry.candidate.program}] if is_chat else entry.candidate.program,
            score=entry.score,
            source=entry.candidate.source,
            model=entry.candidate.model,
            outcome=entry.verdict.outcome.label,
        )
        for entry in selected
    ]
    license = {"license": group.extra["license"]} if "license" in group.extra else {}
    extra = {"problem_id": group.problem_id, **license, **_repair_column(group, selected)}
    return RankedGroup(prompt=prompt, candidates=candidates, extra=extra)


def _repair_column(group: JudgedGroup, selected: list[_Scored]) -> dict[str, list[int | None]]:
    """Which of the selected candidates repairs which, where one does."""
    index_of = {id(candidate): index for index, candidate in enumerate(group.candidates)}
    kept = [index_of[id(entry.candidate)] for entry in selected]
    by_program = {group.candidates[index].program: index for index in reversed(kept)}
    equals = {
        index: by_program[candidate.program]
        for index, candidate in enumerate(group.candidates)
        if candidate.program in by_program and index not in kept
    }
    column = renumbered([candidate.repair_of for candidate in group.candidates], kept, equals)
    return {"repair_of": column} if any(index is not None for index in column) else {}


def _scored(group: JudgedGroup, config: RankConfig) -> list[_Scored]:
    """The candidates that could be judged, with their scores."""
    scored = [
        _Scored(candidate, verdict, score(verdict, candidate.source, config))
        for candidate, verdict in zip(group.candidates, group.verdicts, strict=True)
        if verdict.outcome is not Outcome.INFRASTRUCTURE
    ]
    passing = [entry for entry in scored if entry.verdict.outcome is Outcome.PASSED]
    candidates = [entry.candidate for entry in passing]
    bonuses = preference_bonuses(config.passed_preference, config.preference_weight, candidates)
    for entry, bonus in zip(passing, bonuses, strict=True):
        entry.score += bonus
    return scored


def _reason_to_drop(scored: list[_Scored], config: RankConfig) -> str | None:
    """The difficulty window and AceCoder's gap rules, over all candidates: equal programs count as often as they were drawn.

    Repairs do not count in the window: only the problems that a student fails get them.
    """
    students = [entry for entry in scored if not entry.candidate.is_teachers and entry.candidate.repair_of is None]
    if students:
        pass_rate = sum(entry.verdict.outcome is Outcome.PASSED for entry in students) / len(students)
        if pass_rate < config.min_student_pass_rate:
            return "too hard for the student"
        if pass_rate > config.max_student_pass_rate:
            return "too easy for the student"
    shares = [entry.share for entry in scored if config.min_worst is None or entry.share > config.min_worst]
    if config.min_best is not None and not max(shares, default=0.0) > config.min_best:
        return "no candidate is good enough"
    if config.min_gap is not None and not (shares and max(shares) - min(shares) > config.min_gap):
        return "best and worst are too close"
    return None


def _selected(scored: list[_Scored], config: RankConfig) -> list[_Scored]:
    """Without candidates below `min_worst`, and with equal programs once."""
    if config.min_worst is not None:
        scored = [entry for entry in scored if entry.share > config.min_worst]
    if not config.deduplicate:
        return scored
    best_first = sorted(scored, key=lambda entry: -entry.score)
    kept = {entry.candidate.program: entry for entry in reversed(best_first)}
    return [entry for entry in scored if kept[entry.candidate.program] is entry]


def _teacher_is_below(scored: list[_Scored]) -> bool:
    teachers = [entry.score for entry in scored if entry.candidate.is_teachers]
    students = [entry.score for entry in scored if not entry.candidate.is_teachers]
    return bool(teachers and students and max(teachers) < max(students))
