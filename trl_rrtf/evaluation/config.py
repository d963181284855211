"""Options of the commands `evaluate`, `compare` and `select`."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import check_options, option, refuse_idle
from trl_rrtf.problems.config import SKIP_UNUSABLE
from trl_rrtf.rows.prompts import PROMPT_STYLES
from trl_rrtf.sampling.engines.options import DTYPES

SIGNALS = {
    "public_tests": "how many public tests it passes",
    "agreement": "how many candidates give the same outputs on generated inputs",
    "log_probability": "a language model's mean log-probability of it, per token",
    "reward_model": "the score of a reward model",
}
"""What can choose between the candidates of a problem."""


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
        skip_unusable: Whether rows that are no problems are passed over, as in [`load_problems`][trl_rrtf.load_problems].

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
    skip_unusable: bool | None = option(SKIP_UNUSABLE, default=None)

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


@dataclass
class SelectArguments:
    """Files of the `select` stage, beside `SelectConfig` and `JudgeConfig`.

    Attributes:
        input: Candidate groups, judged or not.
        output: Groups of the one chosen candidate, `.jsonl` or `.parquet`.
        evaluation: Where `select@n` goes, `.json`, or None. Candidates without verdicts are judged on all tests for it.
        overwrite: Throw away an earlier output.

    Raises:
        ConfigError: A value is of a wrong type, or `evaluation` does not end in .json.
    """

    input: str = option("Candidate groups, judged or not: a file, or a Hub data set id.", is_input=True)
    output: str = option(
        "Where the groups of one chosen candidate go (.jsonl or .parquet).", is_output=True, decides_output=False
    )
    evaluation: str | None = option(
        "Where the evaluation of the choice goes (.json), for `trl-rrtf compare`. Candidates that have no verdicts yet are "
        "judged on all tests for it; the choice never sees these.",
        default=None,
        is_output=True,
        decides_output=False,
    )
    overwrite: bool = option("Throw away an earlier output.", default=False, decides_output=False)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if self.evaluation is not None and not self.evaluation.endswith(".json"):
            raise ConfigError(f"`evaluation`: expected a name that ends in .json, got {self.evaluation}")


@dataclass
class SelectConfig:
    """How one candidate of n is chosen.

    Attributes:
        by: Signals from [`SIGNALS`][trl_rrtf.evaluation.config.SIGNALS], by priority: a later one decides between candidates
            that the earlier ones find equal. What is left equal goes to the candidate that was drawn first.
        source: Whose candidates are chosen from, `student` or `teacher`; None for both. References are never chosen.
        public_tests: How many tests are public in rows without the column `public_tests`; None for none.
        num_inputs: Inputs on which the candidates of a problem are compared, for `agreement`.
        seed: The same seed generates the same inputs.
        model: Language model for `log_probability`, a folder or Hub id; None reads the column `teacher_log_probs`.
        reward_model: Sequence classifier with one label, for `reward_model`: a folder or Hub id.
        prompt_style: How the problem becomes the prompt of both models.
        dtype: Precision of their weights.
        batch_size: Candidates per forward pass.

    Raises:
        ConfigError: A value is of a wrong type or out of range, a signal lacks its model, or an option belongs to a signal
            that `by` does not name.
    """

    by: list[str] = option(
        f"What chooses, in order of priority: {'; '.join(f'{name} ({what})' for name, what in SIGNALS.items())}.",
        default_factory=lambda: ["public_tests", "agreement"],
        choices=tuple(SIGNALS),
    )
    source: str | None = option(
        "Choose from candidates of this source alone: then n and one sample are of one kind. Default: all but references.",
        default=None,
        choices=("student", "teacher"),
    )
    public_tests: int | None = option(
        "How many of a problem's tests are public, the first ones, where its row has no column `public_tests`. Default: none.",
        default=None,
        at_least=0,
    )
    num_inputs: int = option("Generated inputs per problem, for agreement.", default=16, at_least=1)
    seed: int = option("The same seed generates the same inputs, for agreement.", default=42)
    model: str | None = option(
        "Language model for log_probability: a folder, or a Hub id. Default: the column `teacher_log_probs` of the candidates, "
        "as `trl-rrtf teacher-logprobs` writes it.",
        default=None,
        is_input=True,
    )
    reward_model: str | None = option(
        "Reward model (a sequence classifier with one label): a folder, or a Hub id.", default=None, is_input=True
    )
    prompt_style: str = option(
        "How the problem becomes the prompt of the models.", default="chat", choices=tuple(PROMPT_STYLES)
    )
    dtype: str = option("Precision of the models' weights.", default="auto", choices=DTYPES)
    batch_size: int = option("Candidates per forward pass of the models.", default=8, at_least=1)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if not self.by or len(set(self.by)) < len(self.by):
            raise ConfigError(f"`by`: expected signals, each once, got {self.by}; the signals are {', '.join(SIGNALS)}")
        if "reward_model" in self.by and not self.reward_model:
            raise ConfigError("`reward_model`: `by` names it, and there is none; give its folder or Hub id")
        reads_a_model = "reward_model" in self.by or ("log_probability" in self.by and self.model is not None)
        for names, is_used, needs in (
            (("public_tests",), {"public_tests", "agreement"} & set(self.by), "`public_tests` or `agreement` in `by`"),
            (("num_inputs", "seed"), "agreement" in self.by, "`agreement` in `by`"),
            (("model",), "log_probability" in self.by, "`log_probability` in `by`"),
            (("reward_model",), "reward_model" in self.by, "`reward_model` in `by`"),
            (("prompt_style", "dtype", "batch_size"), reads_a_model, "a model: `model` or `reward_model`"),
        ):
            if not is_used:
                refuse_idle(self, names, f"it needs {needs}")
