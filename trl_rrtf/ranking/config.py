"""Settings of the `rank` stage: how verdicts become scores, and which groups are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from trl_rrtf.errors import ConfigError
from trl_rrtf.prompts import PROMPT_STYLES
from trl_rrtf.ranking.preferences import PREFERENCES

PARTIAL_SCORE = 2.0
PASSED_SCORE = 3.0


@dataclass
class RankArguments:
    """Files of the `rank` stage.

    Attributes:
        input: Judged groups.
        output: Ranked groups, `.jsonl` or `.parquet`.
        overwrite: Throw away an earlier output.
        report: Folder for the data card and plots of the groups.
        license: Licence of the data, for the card.
    """

    input: str = field(metadata={"help": "Judged groups: a file, or a Hub data set id."})
    output: str = field(metadata={"help": "Where the ranked groups go (.jsonl or .parquet)."})
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier output."})
    report: str | None = field(
        default=None, metadata={"help": "Folder for the data card (README.md) and its plots; needs `trl-rrtf[plots]`."}
    )
    license: str | None = field(default=None, metadata={"help": "Licence of the data, as the Hub names it (apache-2.0)."})


@dataclass
class RankConfig:
    """How verdicts become scores, and which groups are kept.

    Attributes:
        failed_score: Score of `failed`.
        partial_credit: Extra score of a partial candidate that passes all but nothing of its tests.
        teacher_bonus: What a teacher's candidate gets on top, so that it wins a tie.
        drop_teacher_below_student: The paper's filter.
        passed_preference: What is preferred between programs that pass, one of `PREFERENCES`.
        preference_weight: Extra score of the most preferred passing program; the least preferred gets nothing.
        min_student_pass_rate: Drop a group of which a smaller share of the student's candidates passes.
        max_student_pass_rate: Drop a group of which a larger share of the student's candidates passes.
        require_signal: Whether a group in which all scores are equal is dropped.
        min_best: Drop a group whose best candidate passes no larger share of the tests than this.
        min_gap: Drop a group whose best and worst candidates lie no further apart than this, in shares of tests passed.
        min_worst: Leave out a candidate that passes no larger share of the tests than this.
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
    passed_preference: str = field(
        default="none",
        metadata={
            "help": "What is preferred between programs that pass: `run_time` (only a factor of two counts), `length` (fewer "
            "tokens), `teacher_log_prob` (what `trl-rrtf score` adds), or `none`, as in the paper.",
            "choices": list(PREFERENCES),
        },
    )
    preference_weight: float = field(
        default=0.1,
        metadata={"help": "Extra score of the most preferred passing program; smaller than `teacher_bonus`."},
    )
    min_student_pass_rate: float = field(
        default=0.0, metadata={"help": "Drop a problem of which a smaller share of the student's candidates passes (too hard)."}
    )
    max_student_pass_rate: float = field(
        default=1.0,
        metadata={
            "help": "Drop a problem of which a larger share of the student's candidates passes; 0.99 drops what all solve."
        },
    )
    require_signal: bool = field(default=False, metadata={"help": "Drop a group in which all scores are equal."})
    min_best: float | None = field(
        default=None,
        metadata={"help": "Drop a group whose best candidate passes no larger share of its tests than this (AceCoder: 0.8)."},
    )
    min_gap: float | None = field(
        default=None,
        metadata={
            "help": "Drop a group whose best and worst share of tests passed differ by no more than this (AceCoder: 0.4)."
        },
    )
    min_worst: float | None = field(
        default=None, metadata={"help": "Leave out candidates that pass no larger share of the tests than this (AceCoder: 0)."}
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
        if self.passed_preference not in PREFERENCES:
            names = ", ".join(PREFERENCES)
            raise ConfigError(f"`passed_preference`: expected one of {names}, got {self.passed_preference!r}")
        if self.passed_preference != "none" and not 0.0 < self.preference_weight < self.teacher_bonus:
            raise ConfigError(
                f"`preference_weight`: expected more than 0 and less than `teacher_bonus` ({self.teacher_bonus:g}), which must "
                f"still win a tie, got {self.preference_weight}"
            )
        if not 0.0 <= self.min_student_pass_rate <= self.max_student_pass_rate <= 1.0:
            raise ConfigError(
                "`min_student_pass_rate`, `max_student_pass_rate`: expected 0 <= min <= max <= 1, got "
                f"{self.min_student_pass_rate} and {self.max_student_pass_rate}"
            )
        for name in ("min_best", "min_gap", "min_worst"):
            if (value := getattr(self, name)) is not None and not 0.0 <= value < 1.0:
                raise ConfigError(f"`{name}`: expected a share from 0 to below 1, got {value}")
        if self.prompt_style not in PROMPT_STYLES:
            raise ConfigError(f"`prompt_style`: expected one of {', '.join(PROMPT_STYLES)}, got {self.prompt_style!r}")
