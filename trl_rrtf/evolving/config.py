"""Files and settings of the `evolve` stage; light, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.evolving.rewriting import METHODS
from trl_rrtf.options import check_options, option, refuse_idle
from trl_rrtf.problems.config import SKIP_UNUSABLE
from trl_rrtf.sampling.config import SamplingConfig


@dataclass
class EvolveArguments:
    """Files of the `evolve` stage.

    Attributes:
        input: Seed problems; they need no tests.
        output: Evolved problems, `.jsonl` or `.parquet`; what was dropped and why goes to `OUTPUT.summary.json`.
        where: Which seeds, such as `split=train`.
        limit: Only the first `limit` seeds.
        overwrite: Throw away an earlier output.
        skip_unusable: Whether rows that are no problems are passed over, as in [`load_problems`][trl_rrtf.load_problems].

    Raises:
        ConfigError: A value is of a wrong type or out of range.
    """

    input: str = option(
        "Seed problems: a file, a Hub data set id, or `humaneval`. They need no tests.", is_input=True, aliases=("--problems",)
    )
    output: str = option(
        "Where the evolved problems go (.jsonl or .parquet); OUTPUT.summary.json says what was dropped and why.",
        is_output=True,
        decides_output=False,
    )
    where: str | None = option("Only seeds with this value, such as `split=train`.", default=None)
    limit: int | None = option("Only the first `limit` seeds.", default=None, at_least=1)
    overwrite: bool = option("Throw away an earlier output.", default=False, decides_output=False)
    skip_unusable: bool | None = option(SKIP_UNUSABLE, default=None)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)


@dataclass
class EvolveConfig:
    """How problems evolve and get tests.

    Attributes:
        rounds: Rounds; WizardCoder has 3.
        methods: Which of the five methods are used.
        keep_seeds: Whether the seeds stand in the output too (those with tests, where tests are asked for).
        max_similarity: Similarity from which an evolution repeats its parent.
        max_growth: Longest statement, as a multiple of its parent.
        synthesize_tests: Whether evolved problems get tests; without them they cannot be judged.
        num_tests: Assertions that the teacher is asked for.
        min_tests: Fewest tests that must be left.
        num_votes: Independent solutions that vote on each test.

    Raises:
        ConfigError: A value is of a wrong type or out of range, or two contradict each other.
    """

    rounds: int = option("Rounds of evolution.", default=3, at_least=1)
    methods: list[str] = option(
        "Which of the five methods are used.", default_factory=lambda: list(METHODS), choices=tuple(METHODS)
    )
    keep_seeds: bool = option("Put the seeds (those with tests) into the output too.", default=False)
    max_similarity: float = option("An evolution that is so similar to its parent is dropped.", default=0.9, above=0, at_most=1)
    max_growth: float = option("Longest statement, as a multiple of its parent.", default=4.0, above=1)
    synthesize_tests: bool = option("Have the teacher write tests, and check them.", default=True)
    num_tests: int = option("Assertions that the teacher is asked for.", default=8, at_least=1)
    min_tests: int = option("Fewest tests that must be left, else the problem is dropped.", default=5, at_least=1)
    num_votes: int = option("Independent solutions that vote on each test.", default=3, at_least=0)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if not self.methods:
            raise ConfigError(f"`methods`: expected some of {', '.join(METHODS)}, got none")
        if self.min_tests > self.num_tests:
            raise ConfigError(f"`min_tests`: expected 1 to `num_tests` ({self.num_tests}), got {self.min_tests}")
        if not self.synthesize_tests:
            refuse_idle(self, ("num_tests", "min_tests", "num_votes"), "no tests are written without `synthesize_tests`")


@dataclass
class TeacherConfig(SamplingConfig):
    """The teacher: as in `sample`; `num_generations` is how many evolutions are tried, of which the first good one stays.

    Each request is a user's message, and what is written are problems and not candidates: `prompt_style` and
    `include_reference` are refused.
    """

    source: str = option("What the model is.", default="teacher", choices=("teacher",))
    num_generations: int = option("Evolutions that are tried; the first good one stays.", default=2, at_least=1)
    max_new_tokens: int = option("Longest answer, in tokens.", default=1024, at_least=1)

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        refuse_idle(self, ("prompt_style", "include_reference"), "a teacher that evolves problems writes no candidates")
