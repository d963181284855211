"""Files and rules of the `filter` stage; light, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import check_options, option

SKIP_UNUSABLE = (
    "Pass over rows that are no problems, and count them by reason (false: the first one is an error); by default only in "
    "APPS, TACO, CodeContests and LiveCodeBench."
)
"""Help of the option that every command with problems has."""


@dataclass
class FilterArguments:
    """Files of the `filter` stage.

    Attributes:
        input: Problems.
        output: The problems that are kept, `.jsonl` or `.parquet`; what was dropped and why goes to `OUTPUT.summary.json`.
        overwrite: Throw away an earlier output.

    Raises:
        ConfigError: A value is of a wrong type.
    """

    input: str = option(
        "Problems: a file, a Hub data set id (`user/name:configuration:split`), or `humaneval`.",
        is_input=True,
        aliases=("--problems",),
    )
    output: str = option(
        "Where the kept problems go (.jsonl or .parquet); OUTPUT.summary.json says what was dropped and why.",
        is_output=True,
        decides_output=False,
    )
    overwrite: bool = option("Throw away an earlier output.", default=False, decides_output=False)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)


@dataclass
class FilterConfig:
    """What is dropped.

    Attributes:
        against: Benchmarks that no problem may repeat.
        ngram: Words of a run that a statement must not share with a benchmark.
        benchmark_similarity: Similarity from which a statement is a near-duplicate of a benchmark's.
        word_similarity: Cosine of rare words from which a statement is a paraphrase of a benchmark's.
        duplicate_similarity: Similarity from which a statement is a near-duplicate of an earlier one; 1 for equal ones only.
        min_characters: Shortest statement.
        max_characters: Longest statement.
        min_tests: Fewest tests.
        require_reference: Whether a problem needs a reference solution.
        skip_unusable: Whether rows that are no problems are passed over and counted, as in
            [`load_problems`][trl_rrtf.load_problems]; by default those of the published files that are known to hold some.

    Raises:
        ConfigError: A value is of a wrong type or out of range, or two contradict each other.
    """

    against: list[str] = option(
        "Benchmarks that no problem may repeat: files, Hub data set ids, or `humaneval`.",
        default_factory=lambda: ["humaneval"],
        is_input=True,
    )
    # Any two texts share runs of fewer words.
    ngram: int = option("A statement may not share so many words in a row with a benchmark's.", default=10, at_least=3)
    benchmark_similarity: float = option(
        "Jaccard similarity of word shingles from which a statement repeats a benchmark's.", default=0.5, above=0, at_most=1
    )
    word_similarity: float = option(
        "Cosine of the rare words (TF-IDF) from which a statement paraphrases a benchmark's; 1 switches it off.",
        default=0.45,
        above=0,
        at_most=1,
    )
    duplicate_similarity: float = option(
        "The same among the problems themselves; the first one stays.", default=0.8, above=0, at_most=1
    )
    min_characters: int = option("Shortest statement, in characters.", default=0, at_least=0)
    max_characters: int = option("Longest statement, in characters.", default=20_000, at_least=0)
    min_tests: int = option("Fewest tests; 0 keeps problems without any.", default=1, at_least=0)
    require_reference: bool = option("Drop problems without a reference solution.", default=False)
    skip_unusable: bool | None = option(SKIP_UNUSABLE, default=None)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if self.min_characters > self.max_characters:
            raise ConfigError(
                f"`min_characters`, `max_characters`: expected min <= max, got {self.min_characters} and {self.max_characters}"
            )
