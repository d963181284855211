"""From verdicts and sources to scores and ranked groups: the only place where facts become numbers.

The paper (arXiv 2307.14936, section 3.2) gives four classes, a tie rule and a filter, but no numbers. Here:

| outcome | score |
|---|---|
| `compile_error` | 0 |
| `runtime_error` | 1 |
| `failed` (ran through, passed nothing) | `failed_score`, by default 1.5 |
| `partial` | 2, plus `partial_credit` * passed / total |
| `passed` | 3 |
| a teacher's (or reference's) candidate | plus `teacher_bonus`, by default 0.25 |
| `infrastructure` | none: the candidate is left out |
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from tqdm import tqdm

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import TEACHER_SOURCES, JudgedGroup, Outcome, RankedGroup, Verdict
from trl_rrtf.prompts import PROMPT_STYLES, render_prompt
from trl_rrtf.row_files import ResumableWriter, fingerprint, read_rows

PARTIAL_SCORE = 2.0
PASSED_SCORE = 3.0


@dataclass
class RankArguments:
    """Files of the `rank` stage.

    Attributes:
        input: Judged groups.
        output: Ranked groups, `.jsonl` or `.parquet`.
        overwrite: Throw away an earlier output.
    """

    input: str = field(metadata={"help": "Judged groups: a file, or a Hub data set id."})
    output: str = field(metadata={"help": "Where the ranked groups go (.jsonl or .parquet)."})
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier output."})


@dataclass
class RankConfig:
    """How verdicts become scores, and which groups are kept.

    Attributes:
        failed_score: Score of `failed`.
        partial_credit: Extra score of a partial candidate that passes all but nothing of its tests.
        teacher_bonus: What a teacher's candidate gets on top, so that it wins a tie.
        drop_teacher_below_student: The paper's filter.
        deduplicate: Whether equal programs of a group count once.
        prompt_style: How the problem becomes the prompt that is trained on.

    Raises:
        ConfigError: The numbers would change the order of the classes.
    """

    failed_score: float = field(
        default=1.5,
        metadata={
            "help": "Score of a program that ran through but passed no test; the paper names no such class. Between 1 "
            "(runtime error) and 2 (partial)."
        },
    )
    partial_credit: float = field(
        default=0.0,
        metadata={"help": "A partial program scores 2 + this * (tests passed / tests). 0 as in the paper."},
    )
    teacher_bonus: float = field(
        default=0.25,
        metadata={
            "help": "Added to a teacher's score, so that it wins a tie. Not 0 (the pair would weigh nothing), and smaller than "
            "the gap between two outcomes (a tie rule must not overturn a verdict)."
        },
    )
    drop_teacher_below_student: bool = field(
        default=True,
        metadata={"help": "Drop a group whose best student scores higher than its best teacher, as the paper does."},
    )
    deduplicate: bool = field(default=True, metadata={"help": "Count equal programs of a group once, the teacher's first."})
    prompt_style: str = field(
        default="chat",
        metadata={
            "help": "How the problem becomes the prompt; the one that the student was sampled with.",
            "choices": list(PROMPT_STYLES),
        },
    )

    def __post_init__(self) -> None:
        """Checks that no number overturns a verdict."""
        if not 1.0 <= self.failed_score <= PARTIAL_SCORE:
            raise ConfigError(f"`failed_score`: expected a number from 1 to 2, got {self.failed_score}")
        if not 0.0 <= self.partial_credit < 1.0:
            raise ConfigError(f"`partial_credit`: expected a number from 0 to below 1, got {self.partial_credit}")
        classes = sorted({0.0, 1.0, self.failed_score, PARTIAL_SCORE, PASSED_SCORE})
        smallest_gap = min(high - low for low, high in pairwise(classes))
        smallest_gap = min(smallest_gap, PASSED_SCORE - PARTIAL_SCORE - self.partial_credit)
        if not 0.0 < self.teacher_bonus < smallest_gap:
            raise ConfigError(
                f"`teacher_bonus`: expected more than 0 and less than the smallest gap between outcomes ({smallest_gap:g}), "
                f"got {self.teacher_bonus}"
            )
        if self.prompt_style not in PROMPT_STYLES:
            raise ConfigError(f"`prompt_style`: expected one of {', '.join(PROMPT_STYLES)}, got {self.prompt_style!r}")


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
    """
    candidates: list[dict[str, Any]] = [
        {
            "completion": completion,
            "source": source,
            "model": model,
            "outcome": verdict.outcome.label,
            "score": score(verdict, source, config),
        }
        for completion, source, model, verdict in zip(
            group.completions, group.sources, group.models, group.verdicts, strict=True
        )
        if verdict.outcome is not Outcome.INFRASTRUCTURE
    ]
    if config.deduplicate:
        best_first = sorted(candidates, key=lambda candidate: -candidate["score"])
        first_of_each = {candidate["completion"]: id(candidate) for candidate in reversed(best_first)}
        candidates = [candidate for candidate in candidates if first_of_each[candidate["completion"]] == id(candidate)]
    if len(candidates) < 2:
        return None, "dropped: fewer than two different candidates"
    teachers = [candidate["score"] for candidate in candidates if candidate["source"] in TEACHER_SOURCES]
    students = [candidate["score"] for candidate in candidates if candidate["source"] not in TEACHER_SOURCES]
    if config.drop_teacher_below_student and teachers and students and max(teachers) < max(students):
        return None, "dropped: teacher below student"

    def column(name: str) -> list[Any]:
        return [candidate[name] for candidate in candidates]

    prompt = render_prompt(group, config.prompt_style)
    is_chat = not isinstance(prompt, str)
    completions = [[{"role": "assistant", "content": text}] if is_chat else text for text in column("completion")]
    ranked = RankedGroup(
        prompt=prompt,
        completions=completions,
        scores=column("score"),
        sources=column("source"),
        extra={"problem_id": group.problem_id, "models": column("model"), "outcomes": column("outcome")},
    )
    return ranked, "kept"


def run_rank(arguments: RankArguments, config: RankConfig) -> dict[str, Any]:
    """The `rank` stage: judged groups in, ranked groups out.

    Returns:
        A summary: groups kept, dropped and why, candidates per outcome, ordered teacher-student pairs.

    Raises:
        RowError: A row breaks the format.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: No group is left.
    """
    groups = read_rows(arguments.input, JudgedGroup)
    settings = {"stage": "rank", "input": fingerprint(arguments.input), **asdict(config)}
    ranked_groups, fates = [], Counter[str]()
    for group in tqdm(groups, desc="rank", unit="group"):
        ranked, fate = rank_group(group, config)
        fates[fate] += 1
        if ranked is not None:
            ranked_groups.append(ranked)
    if not ranked_groups:
        raise ConfigError(
            f"`input`: none of the {len(groups)} groups is left ({_counts(fates)}); sample more, or from a teacher"
        )
    with ResumableWriter(arguments.output, settings, overwrite=arguments.overwrite) as writer:
        if not writer.finished:
            writer.write(ranked_groups[writer.rows_done :])
            writer.finish()
    outcomes = Counter(outcome for group in ranked_groups for outcome in group.extra["outcomes"])
    pairs = [_ordered_pairs(group) for group in ranked_groups]
    return {
        "groups": len(groups),
        **dict(sorted(fates.items(), reverse=True)),
        "candidates by outcome": _counts(outcomes),
        "teacher-student pairs": sum(pairs),
        "groups without such a pair": pairs.count(0),
        "output": arguments.output,
    }


def _ordered_pairs(group: RankedGroup) -> int:
    """Number of (teacher, student) pairs with the teacher's score higher."""
    entries = list(zip(group.scores, group.sources or [], strict=True))
    teachers = [value for value, source in entries if source in TEACHER_SOURCES]
    students = [value for value, source in entries if source not in TEACHER_SOURCES]
    return sum(teacher > student for teacher in teachers for student in students)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())
