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
from trl_rrtf.groups import TEACHER_SOURCES, JudgedGroup, Outcome, RankedGroup, Verdict
from trl_rrtf.prompts import render_prompt
from trl_rrtf.ranking.config import PARTIAL_SCORE, PASSED_SCORE, RankConfig
from trl_rrtf.ranking.preferences import PassingCandidate, preference_bonuses

KEPT = "kept"


@dataclass
class _Candidate:
    completion: str
    source: str
    model: str
    verdict: Verdict
    teacher_log_prob: float | None
    score: float

    @property
    def is_teachers(self) -> bool:
        return self.source in TEACHER_SOURCES

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
    judged = _scored(group, config)
    reason = _reason_to_drop(judged, config)
    if reason is not None:
        return None, f"dropped: {reason}"
    candidates = _selected(judged, config)
    if len(candidates) < 2:
        return None, "dropped: fewer than two different candidates"
    if config.drop_teacher_below_student and _teacher_is_below(candidates):
        return None, "dropped: teacher below student"
    if config.require_signal and len({candidate.score for candidate in candidates}) == 1:
        return None, "dropped: all scores are equal"

    prompt = render_prompt(group, config.prompt_style)
    is_chat = not isinstance(prompt, str)
    texts = [candidate.completion for candidate in candidates]
    extra = {
        "problem_id": group.problem_id,
        "models": [candidate.model for candidate in candidates],
        "outcomes": [candidate.verdict.outcome.label for candidate in candidates],
    }
    ranked = RankedGroup(
        prompt=prompt,
        completions=[[{"role": "assistant", "content": text}] for text in texts] if is_chat else texts,
        scores=[candidate.score for candidate in candidates],
        sources=[candidate.source for candidate in candidates],
        extra=extra | ({"license": group.extra["license"]} if "license" in group.extra else {}),
    )
    return ranked, KEPT


def _scored(group: JudgedGroup, config: RankConfig) -> list[_Candidate]:
    """The candidates that could be judged, with their scores."""
    log_probs = group.extra.get("teacher_log_probs") or [None] * len(group.completions)
    rows = zip(group.completions, group.sources, group.models, group.verdicts, log_probs, strict=True)
    judged = [row for row in rows if row[3].outcome is not Outcome.INFRASTRUCTURE]
    candidates = [_Candidate(*row, score=score(row[3], row[1], config)) for row in judged]
    passing = [candidate for candidate in candidates if candidate.verdict.outcome is Outcome.PASSED]
    features = [PassingCandidate(entry.completion, entry.verdict.seconds, entry.teacher_log_prob) for entry in passing]
    bonuses = preference_bonuses(config.passed_preference, config.preference_weight, features)
    for candidate, bonus in zip(passing, bonuses, strict=True):
        candidate.score += bonus
    return candidates


def _reason_to_drop(candidates: list[_Candidate], config: RankConfig) -> str | None:
    """The difficulty window and AceCoder's gap rules, over all candidates: equal programs count as often as they were drawn."""
    students = [candidate for candidate in candidates if not candidate.is_teachers]
    if students:
        pass_rate = sum(candidate.verdict.outcome is Outcome.PASSED for candidate in students) / len(students)
        if pass_rate < config.min_student_pass_rate:
            return "too hard for the student"
        if pass_rate > config.max_student_pass_rate:
            return "too easy for the student"
    shares = [candidate.share for candidate in candidates if config.min_worst is None or candidate.share > config.min_worst]
    if config.min_best is not None and not max(shares, default=0.0) > config.min_best:
        return "no candidate is good enough"
    if config.min_gap is not None and not (shares and max(shares) - min(shares) > config.min_gap):
        return "best and worst are too close"
    return None


def _selected(candidates: list[_Candidate], config: RankConfig) -> list[_Candidate]:
    """Without candidates below `min_worst`, and with equal programs once."""
    if config.min_worst is not None:
        candidates = [candidate for candidate in candidates if candidate.share > config.min_worst]
    if not config.deduplicate:
        return candidates
    best_first = sorted(candidates, key=lambda candidate: -candidate.score)
    kept = {candidate.completion: candidate for candidate in reversed(best_first)}
    return [candidate for candidate in candidates if kept[candidate.completion] is candidate]


def _teacher_is_below(candidates: list[_Candidate]) -> bool:
    teachers = [candidate.score for candidate in candidates if candidate.is_teachers]
    students = [candidate.score for candidate in candidates if not candidate.is_teachers]
    return bool(teachers and students and max(teachers) < max(students))
