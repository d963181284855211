"""Settings of the `rank` stage: how verdicts become scores, and which groups are kept."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.hub import check_license
from trl_rrtf.options import check_options, option, refuse_idle
from trl_rrtf.ranking.preferences import PREFERENCES
from trl_rrtf.rows.prompts import PROMPT_STYLES

PARTIAL_SCORE = 2.0
PASSED_SCORE = 3.0


@dataclass
class RankArguments:
    """Files of the `rank` stage.

    Attributes:
        input: Judged groups.
        output: Ranked groups, `.jsonl` or `.parquet`.
        overwrite: Throw away an earlier output.
        card: Folder for the data card and plots of the groups.
        license: Licence of the data, for the card.

    Raises:
        ConfigError: A value is of a wrong type.
    """

    input: str = option("Judged groups: a file, or a Hub data set id.", is_input=True)
    output: str = option("Where the ranked groups go (.jsonl or .parquet).", is_output=True, decides_output=False)
    overwrite: bool = option("Throw away an earlier output.", default=False, decides_output=False)
    card: str | None = option(
        "Folder for the data card (README.md) and its plots; needs `trl-rrtf[plots]`.", default=None, decides_output=False
    )
    license: str | None = option("Licence of the data, as the Hub names it (apache-2.0).", default=None, decides_output=False)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if self.card is None:
            refuse_idle(self, ("license",), "it stands in the data card, and `card` asks for none")
        check_license(self.license)


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
        ConfigError: A value is of a wrong type, or the numbers would change the order of the classes.
    """

    failed_score: float = option(
        "Score of a program that ran through but passed no test; the paper names no such class. Between 1 (runtime error) and "
        "2 (partial).",
        default=1.5,
        at_least=1,
        at_most=PARTIAL_SCORE,
    )
    partial_credit: float = option(
        "A partial program scores 2 + this * (tests passed / tests). 0 as in the paper.", default=0.0, at_least=0, below=1
    )
    teacher_bonus: float = option(
        "Added to a teacher's score, so that it wins a tie. Not 0 (the pair would weigh nothing), and smaller than the gap "
        "between two outcomes (a tie rule must not overturn a verdict).",
        default=0.25,
    )
    drop_teacher_below_student: bool = option(
        "Drop a group whose best student scores higher than its best teacher, as the paper does.", default=True
    )
    passed_preference: str = option(
        "What is preferred between programs that pass: `run_time` (only a factor of two counts), `length` (fewer tokens), "
        "`teacher_log_prob` (what `trl-rrtf teacher-logprobs` adds), or `none`, as in the paper.",
        default="none",
        choices=tuple(PREFERENCES),
    )
    preference_weight: float = option(
        "Extra score of the most preferred passing program; smaller than `teacher_bonus`.", default=0.1
    )
    min_student_pass_rate: float = option(
        "Drop a problem of which a smaller share of the student's candidates passes (too hard).", default=0.0
    )
    max_student_pass_rate: float = option(
        "Drop a problem of which a larger share of the student's candidates passes; 0.99 drops what all solve.", default=1.0
    )
    require_signal: bool = option("Drop a group in which all scores are equal.", default=False)
    min_best: float | None = option(
        "Drop a group whose best candidate passes no larger share of its tests than this (AceCoder: 0.8).",
        default=None,
        at_least=0,
        below=1,
    )
    min_gap: float | None = option(
        "Drop a group whose best and worst share of tests passed differ by no more than this (AceCoder: 0.4).",
        default=None,
        at_least=0,
        below=1,
    )
    min_worst: float | None = option(
        "Leave out candidates that pass no larger share of the tests than this (AceCoder: 0).",
        default=None,
        at_least=0,
        below=1,
    )
    deduplicate: bool = option("Count equal programs of a group once, the teacher's first.", default=True)
    prompt_style: str = option(
        "How the problem becomes the prompt; the one that the student was sampled with.",
        default="chat",
        choices=tuple(PROMPT_STYLES),
    )

    def __post_init__(self) -> None:
        """Checks the values, and that no number overturns a verdict."""
        check_options(self)
        classes = sorted({0.0, 1.0, self.failed_score, PARTIAL_SCORE, PASSED_SCORE})
        smallest_gap = min(high - low for low, high in pairwise(classes))
        smallest_gap = min(smallest_gap, PASSED_SCORE - PARTIAL_SCORE - self.partial_credit)
        if not 0.0 < self.teacher_bonus < smallest_gap:
            raise ConfigError(
                f"`teacher_bonus`: expected more than 0 and less than the smallest gap between outcomes ({smallest_gap:g}), "
                f"got {self.teacher_bonus}"
            )
        if self.passed_preference == "none":
            refuse_idle(self, ("preference_weight",), "`passed_preference` prefers none")
        elif not 0.0 < self.preference_weight < self.teacher_bonus:
            raise ConfigError(
                f"`preference_weight`: expected more than 0 and less than `teacher_bonus` ({self.teacher_bonus:g}), which must "
                f"still win a tie, got {self.preference_weight}"
            )
        if not 0.0 <= self.min_student_pass_rate <= self.max_student_pass_rate <= 1.0:
            raise ConfigError(
                "`min_student_pass_rate`, `max_student_pass_rate`: expected 0 <= min <= max <= 1, got "
                f"{self.min_student_pass_rate} and {self.max_student_pass_rate}"
            )
