"""Options of the commands `evaluate` and `compare`."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import check_options, option


@dataclass
class EvaluateArguments:
    """Files and measures of the `evaluate` stage, beside `SamplingConfig` (n is `num_generations`) and `JudgeConfig`.

    Attributes:
        input: Problems with tests.
        output: The result, `.json`; candidates and verdicts are kept beside it.
        where: Which problems, such as `split=heldout`.
        limit: Only the first `limit` problems.
        k: Values of k.
        k_temperatures: Temperature at which the candidates of each k are drawn, or nothing for `temperature` throughout.
        page: Page with plots and every candidate beside its verdict, `.html`, or None.
        overwrite: Throw away an earlier result.

    Raises:
        ConfigError: A value is out of range.
    """

    input: str = option("Problems: a file, a Hub data set id, or `humaneval`.", is_input=True, aliases=("--problems",))
    output: str = option(
        "Where the result goes (.json); candidates and verdicts are kept beside it.", is_output=True, decides_output=False
    )
    where: str | None = option("Only problems with this value, such as `split=heldout`.", default=None)
    limit: int | None = option("Only the first `limit` problems.", default=None, at_least=1)
    k: list[int] = option("Values of k for pass@k, up to num_generations.", default_factory=lambda: [1], at_least=1)
    k_temperatures: list[float] = option(
        "Temperature of the candidates for each value of k, by default --temperature for all. The paper's measure is "
        "--num_generations 200 --top_p 0.95 --k 1 10 100 --k_temperatures 0.2 1.2 1.2.",
        default_factory=list,
        at_least=0,
    )
    page: str | None = option(
        "Page (.html) with plots and each candidate beside its verdict; needs `plots`.",
        default=None,
        is_output=True,
        decides_output=False,
    )
    overwrite: bool = option("Throw away an earlier result.", default=False, decides_output=False)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if not self.output.endswith(".json"):
            raise ConfigError(f"`output`: expected a name that ends in .json, got {self.output}")
        if not self.k or len(set(self.k)) < len(self.k):
            raise ConfigError(f"`k`: expected numbers from 1, each once, got {self.k}")
        if self.k_temperatures and len(self.k_temperatures) != len(self.k):
            raise ConfigError(
                f"`k_temperatures`: expected one temperature for each of the {len(self.k)} values of `k`, got "
                f"{self.k_temperatures}"
            )
        if self.page is not None and not self.page.endswith(".html"):
            raise ConfigError(f"`page`: expected a name that ends in .html, got {self.page}")


@dataclass
class CompareArguments:
    """Two results of `trl-rrtf evaluate`.

    Attributes:
        first: The one that is compared with, `.json`.
        second: The other one, `.json`.
        output: Where the comparison goes, `.json`, or None.
    """

    first: str = option("A result of `trl-rrtf evaluate` (.json), such as that of the base model.", is_input=True)
    second: str = option("Another one, of the same problems.", is_input=True)
    output: str | None = option("Where the comparison goes (.json).", default=None, is_output=True)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
