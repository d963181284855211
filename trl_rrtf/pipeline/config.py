"""The YAML file of `trl-rrtf run`: its keys, and how file and command line are read together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import build, check_options, option, read_yaml, require_mapping
from trl_rrtf.rows.prompts import PROMPT_STYLES


@dataclass
class PipelineConfig:
    """One YAML file for all stages.

    Attributes:
        output_dir: Where everything goes.
        model: The student.
        problems: Problems with tests.
        train_where: Which problems to train on, such as `split=train`.
        train_limit: Only the first `train_limit` of them, or None for all.
        heldout: Name of the benchmark whose candidates, sampled before training, make the held-out ranked groups.
        rounds: How often to sample, rank and train, each time from the newest checkpoint; fewer if pass@k on `heldout` (its
            first k) no longer rises.
        keep_earlier_groups: Whether a round trains on the ranked groups of those before it too.
        prompt_style: How a problem becomes a prompt, in every stage.
        include_reference: Whether reference solutions are teachers.
        sample: Settings of the student's candidates, as in `trl-rrtf sample` (`models`, `temperatures` and `deduplicate` too).
        teachers: One such section per teacher model, with its `model`.
        judge: As in `trl-rrtf judge`.
        cluster: A Ray cluster whose machines sample and judge the training problems.
        rank: As in `trl-rrtf rank`.
        train: As in `trl-rrtf train`.
        evaluate: Sampling settings of the evaluation, as in `trl-rrtf evaluate`, and `k`.
        benchmarks: What to evaluate on, before and after: `name`, `problems`, optional `where` and `limit`.

    Raises:
        ConfigError: A value is of a wrong type or out of range.
    """

    output_dir: str = option("Where everything goes; run again with the same folder to go on.", is_output=True)
    model: str = option("The student: a folder, or a Hub id.", is_input=True)
    problems: str = option("Problems with tests: a file, a Hub data set id, or `humaneval`.", is_input=True)
    train_where: str | None = option("Problems to train on, such as `split=train`.", default=None)
    train_limit: int | None = option("Only the first `train_limit` of them.", default=None, at_least=1)
    heldout: str | None = option("Name of the benchmark whose candidates make the held-out ranked groups.", default=None)
    rounds: int = option(
        "Sample, rank and train this many times, each time from the newest checkpoint; stops when pass@k on `heldout` no "
        "longer rises, and the best round's model is the result.",
        default=1,
        at_least=1,
    )
    keep_earlier_groups: bool = option(
        "Whether a round also trains on the ranked groups of the rounds before it.", default=True
    )
    prompt_style: str = option("How a problem becomes a prompt, in every stage.", default="chat", choices=tuple(PROMPT_STYLES))
    include_reference: bool = option("Whether reference solutions are teachers.", default=True)
    sample: dict[str, Any] = option("The student's candidates, as in `trl-rrtf sample`.", default_factory=dict)
    teachers: list[dict[str, Any]] = option("One `sample` section per teacher model.", default_factory=list)
    judge: dict[str, Any] = option("As in `trl-rrtf judge`.", default_factory=dict)
    cluster: str | None = option(
        "Sample and judge the training problems on a Ray cluster: `auto` or `host:port`.", default=None
    )
    rank: dict[str, Any] = option("As in `trl-rrtf rank`.", default_factory=dict)
    train: dict[str, Any] = option("As in `trl-rrtf train`.", default_factory=dict)
    evaluate: dict[str, Any] = option("Sampling of the evaluation, and `k`.", default_factory=dict)
    benchmarks: list[dict[str, Any]] = option(
        "Evaluated before and after: `name`, `problems`, `where`, `limit`.", default_factory=list
    )

    def __post_init__(self) -> None:
        """Checks the values; those of the sections are checked by the plan."""
        for name in ("sample", "judge", "rank", "train", "evaluate"):
            require_mapping(getattr(self, name), name)
        check_options(self)
        for name in ("teachers", "benchmarks"):
            for i, section in enumerate(getattr(self, name)):
                require_mapping(section, f"{name}[{i}]")


@dataclass
class Benchmark:
    """What a model is evaluated on.

    Attributes:
        name: Its name in files and tables.
        problems: Problems with tests.
        where: Which of them, such as `split=heldout`.
        limit: Only the first `limit` of them.

    Raises:
        ConfigError: The name cannot be that of a file.
    """

    name: str = option("Its name in files and tables.")
    problems: str = option("Problems with tests: a file, a Hub data set id, or `humaneval`.", is_input=True)
    where: str | None = option("Only problems with this value, such as `split=heldout`.", default=None)
    limit: int | None = option("Only the first `limit` problems.", default=None, at_least=1)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if not self.name or Path(self.name).name != self.name:
            raise ConfigError(f"`name`: expected a name that a file may have, got {self.name!r}")


def load_pipeline_config(arguments: Sequence[str]) -> PipelineConfig:
    """Reads `--config FILE.yaml` and the options that override it, nested ones with a dot.

    Raises:
        ConfigError: An option is unknown, missing, of a wrong type, or has no value.
    """
    import yaml

    values: dict[str, Any] = {}
    options = list(zip(arguments[::2], arguments[1::2], strict=False))
    if len(arguments) % 2 or not all(name.startswith("--") for name, _ in options):
        raise ConfigError(f"expected `--config FILE.yaml` and pairs of `--field value`, got {' '.join(arguments)}")
    for name, value in options:
        if name == "--config":
            values = {**read_yaml(value), **values}
    for name, value in options:
        if name == "--config":
            continue
        *sections, last = name.removeprefix("--").split(".")
        section = values
        for key in sections:
            section = section.setdefault(key, {})
            require_mapping(section, key)
        try:
            section[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"`{name.removeprefix('--')}`: {value!r} is not YAML: {error}") from error
    return build(PipelineConfig, values, "config")
