"""Files and measures of the `evaluate` stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl_rrtf.errors import ConfigError


@dataclass
class EvaluateArguments:
    """Files of the `evaluate` stage, beside `SamplingConfig` (n is `num_generations`) and `JudgeConfig`.

    Attributes:
        problems: Problems with tests.
        output: The result, `.json`; candidates and verdicts are kept beside it.
        where: Which problems, such as `split=heldout`.
        limit: The first so many problems.
        k: Values of k.
        k_temperatures: Temperature at which the candidates of each k are drawn, or nothing for `temperature` throughout.
        report: Page with plots and every candidate beside its verdict, `.html`, or None.
        overwrite: Throw away an earlier result.

    Raises:
        ConfigError: A value is out of range.
    """

    problems: str = field(metadata={"help": "Problems: a file, a Hub data set id, or `humaneval`."})
    output: str = field(metadata={"help": "Where the result goes (.json); candidates and verdicts are kept beside it."})
    where: str | None = field(default=None, metadata={"help": "Only problems with this value, such as `split=heldout`."})
    limit: int | None = field(default=None, metadata={"help": "Only the first so many problems."})
    k: list[int] = field(default_factory=lambda: [1], metadata={"help": "Values of k for pass@k, up to num_generations."})
    k_temperatures: list[float] = field(
        default_factory=list,
        metadata={
            "help": "Temperature of the candidates for each value of k, by default --temperature for all. The paper's "
            "measure is --num_generations 200 --top_p 0.95 --k 1 10 100 --k_temperatures 0.2 1.2 1.2."
        },
    )
    report: str | None = field(
        default=None, metadata={"help": "Page (.html) with plots and each candidate beside its verdict; needs `plots`."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier result."})

    def __post_init__(self) -> None:
        """Checks the values."""
        if not self.output.endswith(".json"):
            raise ConfigError(f"`output`: expected a name that ends in .json, got {self.output}")
        if not self.k or min(self.k) < 1:
            raise ConfigError(f"`k`: expected numbers from 1, got {self.k}")
        if self.k_temperatures and len(self.k_temperatures) != len(self.k):
            raise ConfigError(
                f"`k_temperatures`: expected one temperature for each of the {len(self.k)} values of `k`, got "
                f"{self.k_temperatures}"
            )
        if self.report is not None and not self.report.endswith(".html"):
            raise ConfigError(f"`report`: expected a name that ends in .html, got {self.report}")
