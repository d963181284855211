"""The plan of a run: every section of the YAML file parsed once, and everything checked that can be, before any work."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trl_rrtf.errors import ConfigError
from trl_rrtf.evaluation.config import EvaluateArguments
from trl_rrtf.evaluation.stage import check_evaluation, check_problems_to_evaluate
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.isolation import probe_isolation
from trl_rrtf.judging.preparation import check_tests
from trl_rrtf.models.paths import require_model
from trl_rrtf.options import build, check_options, check_paths, in_section
from trl_rrtf.pipeline.config import Benchmark, PipelineConfig
from trl_rrtf.problems import check_problems, placed_problems
from trl_rrtf.ranking import RankConfig
from trl_rrtf.sampling import SampleArguments, SamplingConfig, make_sampler
from trl_rrtf.sampling.engines import ENGINES
from trl_rrtf.sampling.repairs import check_repairs
from trl_rrtf.sampling.stage import require_models

if TYPE_CHECKING:
    from trl import ModelConfig

    from trl_rrtf.training.config import RRTFConfig

_SAMPLING_RUN = ("models", "temperatures", "deduplicate", "repair_turns", "public_tests")
"""Keys of a sampling section that belong to the run and not to one model's draws."""

_SET_BY_RUN = {
    "sample": {
        "model": "the student is the `model` of the file",
        "source": "the student's candidates are the student's",
        "include_reference": "give it at the top of the file",
    },
    "teachers": {
        "source": "a teacher's candidates are a teacher's",
        "include_reference": "give it at the top of the file",
    },
    "evaluate": {
        "model": "the model before training, and the trained one, are evaluated",
        "source": "it decides nothing here",
        "include_reference": "give it at the top of the file",
    },
    "train": {
        "output_dir": "the model goes into `output_dir` of the file",
        "model_name_or_path": "the student is the `model` of the file",
    },
}
"""Section -> keys that `run` gives itself, and what to do instead."""


@dataclass
class SamplingSection:
    """A model that writes candidates.

    Attributes:
        sampling: The model and how it draws.
        arguments: `models`, `temperatures` and `deduplicate` of its run, whose files each run fills in.
    """

    sampling: SamplingConfig
    arguments: SampleArguments

    @classmethod
    def parse(cls, values: dict[str, Any], section: str) -> Self:
        """Reads a section.

        Raises:
            ConfigError: A key is unknown or wrong.
            LoadError: A model is not there.
        """
        run = {key: values[key] for key in _SAMPLING_RUN if key in values}
        sampling = build(SamplingConfig, {key: value for key, value in values.items() if key not in run}, section)
        with in_section(section):
            arguments = SampleArguments(input="", output="", **run)
            require_models([sampling.model, *arguments.models], sampling)
            if ENGINES[sampling.engine].is_remote:
                make_sampler(sampling)  # asks for its package and its key, and for nothing else
        return cls(sampling, arguments)

    def files(self, input: str, output: Path, cluster: str | None, **selection: Any) -> SampleArguments:
        """The arguments of a run.

        Args:
            input: Problems, or the candidates of an earlier run.
            output: The candidates.
            cluster: Whose machines draw; an endpoint has no use for them.
            selection: `where` and `limit`.
        """
        cluster = None if ENGINES[self.sampling.engine].is_remote else cluster
        return replace(self.arguments, input=input, output=str(output), cluster=cluster, **selection)


@dataclass
class TrainSection:
    """The training of a round.

    Attributes:
        values: Options of `RRTFConfig`, without `output_dir`.
        model: TRL's model options.
    """

    values: dict[str, Any]
    model: ModelConfig

    @classmethod
    def parse(cls, values: dict[str, Any], output_dir: Path) -> Self:
        """Reads the section, and makes a first configuration of it, whose errors are those of all rounds.

        Raises:
            ConfigError: A key is unknown or wrong, or a package that it needs is not installed.
        """
        from trl import ModelConfig

        from trl_rrtf.training.config import RRTFConfig

        own = {option.name for option in fields(RRTFConfig)}
        model_names = [option.name for option in fields(ModelConfig)]
        for name in values:
            if name not in own and name not in model_names:
                raise ConfigError(f"`train`: unknown key `{name}`; the keys are those of `RRTFConfig` and `trl.ModelConfig`")
        of_model = {name: value for name, value in values.items() if name in model_names and name not in own}
        model = build(ModelConfig, of_model, "train")
        with in_section("train"):
            check_options(model)  # TRL's own dataclass does not
        section = cls({name: value for name, value in values.items() if name in own}, model)
        _check_packages(section.config(output_dir), model)
        return section

    def config(self, output_dir: Path) -> RRTFConfig:
        """The trainer's configuration of a round, which training changes: so each round has its own."""
        from trl_rrtf.training.config import RRTFConfig

        return build(RRTFConfig, {**self.values, "output_dir": str(output_dir)}, "train")


def _check_packages(config: RRTFConfig, model: ModelConfig) -> None:
    """Asks for what training would ask for after hours of sampling."""
    from transformers.integrations import get_available_reporting_integrations

    if model.use_peft and importlib.util.find_spec("peft") is None:
        raise ConfigError("`train`: `use_peft` needs the package peft; install `trl-rrtf[peft]`")
    known = {*get_available_reporting_integrations(), "all", "none"}
    missing = [name for name in config.report_to if name not in known]
    if missing:
        raise ConfigError(f"`train`: `report_to`: {', '.join(missing)} is not installed here; install it, or use `none`")


@dataclass
class Plan:
    """What a run does.

    Attributes:
        folder: Where everything goes.
        config: The file's own keys.
        student: The student's candidates.
        teachers: Those of each teacher model.
        judge: Limits of the judge.
        rank: How verdicts become scores.
        train: The training of each round.
        evaluation: Sampling settings of the evaluation.
        measures: Values of k and their temperatures; each evaluation fills in its files.
        benchmarks: What is evaluated on.
    """

    folder: Path
    config: PipelineConfig
    student: SamplingSection
    teachers: list[SamplingSection]
    judge: JudgeConfig
    rank: RankConfig
    train: TrainSection
    evaluation: SamplingConfig
    measures: EvaluateArguments
    benchmarks: list[Benchmark]

    @classmethod
    def parse(cls, config: PipelineConfig) -> Self:
        """Parses and checks a file.

        Raises:
            ConfigError: A setting is wrong; section and key are named.
            LoadError: A model or a problem file is not there.
            RowError: A problem breaks its format.
        """
        _refuse_keys_of_run(config)
        require_model(config.model)
        style = {"prompt_style": config.prompt_style}
        folder = Path(config.output_dir)
        evaluate = dict(config.evaluate)
        measures: dict[str, Any] = {name: evaluate.pop(name) for name in ("k", "k_temperatures") if name in evaluate}
        files = {"input": "", "output": ".json"}
        plan = cls(
            folder=folder,
            config=config,
            student=SamplingSection.parse({**style, "model": config.model, **config.sample}, "sample"),
            teachers=[
                SamplingSection.parse({**style, "source": "teacher", **section}, f"teachers[{i}]")
                for i, section in enumerate(config.teachers)
            ],
            judge=build(JudgeConfig, config.judge, "judge"),
            rank=build(RankConfig, {**style, **config.rank}, "rank"),
            train=TrainSection.parse(config.train, folder / "model"),
            evaluation=build(SamplingConfig, {**style, "model": config.model, **evaluate}, "evaluate"),
            measures=build(EvaluateArguments, {**files, **measures}, "evaluate"),
            benchmarks=[build(Benchmark, section, f"benchmarks[{i}]") for i, section in enumerate(config.benchmarks)],
        )
        plan._check_sections_together()
        check_paths(config, *plan.benchmarks)
        for benchmark in plan.benchmarks:
            check_problems_to_evaluate(benchmark.problems, benchmark.where, benchmark.limit)
        check_problems(config.problems, config.train_where, config.train_limit)
        check_tests(placed_problems(config.problems, config.train_where, config.train_limit))
        plan._check_repairs()
        return plan

    def _check_repairs(self) -> None:
        """The options of repair turns in each section, against the public tests of the training problems."""
        selection = {"where": self.config.train_where, "limit": self.config.train_limit}
        sections = {"sample": self.student, **{f"teachers[{i}]": teacher for i, teacher in enumerate(self.teachers)}}
        for name, section in sections.items():
            arguments = section.files(self.config.problems, self.folder / "candidates.jsonl", self.config.cluster, **selection)
            with in_section(name):
                check_repairs(arguments, self.judge_of_repairs(arguments) or JudgeConfig())

    def judge_of_repairs(self, arguments: SampleArguments) -> JudgeConfig | None:
        """How repair turns run programs on public tests: as the judge does; None where there are no turns."""
        return self.judge if arguments.repair_turns else None

    def _check_sections_together(self) -> None:
        config, names = self.config, [benchmark.name for benchmark in self.benchmarks]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise ConfigError(f"`benchmarks`: two are called {twice}; their files would be one; give each a name of its own")
        if config.heldout is not None and config.heldout not in names:
            raise ConfigError(
                f"`heldout`: expected the name of a benchmark ({', '.join(names) or 'there is none'}), got {config.heldout}"
            )
        if config.rounds > 1 and config.heldout is None:
            raise ConfigError(
                f"`rounds`: expected 1, or above 1 a benchmark in `heldout` that tells when to stop; got {config.rounds} and "
                "heldout=None"
            )
        if self.rank.passed_preference == "teacher_log_prob":
            raise ConfigError(
                "`rank`: `passed_preference`: `run` asks no teacher for log-probabilities; use another preference, or run the "
                "stages one by one with `trl-rrtf teacher-logprobs` before `judge`"
            )
        if config.cluster is not None and importlib.util.find_spec("ray") is None:
            raise ConfigError("`cluster`: needs Ray; `pip install 'trl-rrtf[ray]'`")
        training = self.train.config(self.folder / "model")
        if config.heldout is None and str(getattr(training.eval_strategy, "value", training.eval_strategy)) != "no":
            raise ConfigError(
                f"`train`: `eval_strategy={training.eval_strategy}` needs held-out groups; give `heldout`, or leave it out"
            )
        if config.heldout is not None and len(set(self.measures.k_temperatures)) > 1:
            raise ConfigError(
                "`evaluate`: `k_temperatures`: the candidates of `heldout` make the held-out groups, and are drawn at one "
                "temperature; give one, or evaluate the trained model with `trl-rrtf evaluate`"
            )
        if self.judge.required_isolation:
            probe_isolation(self.judge).require(self.judge.required_isolation)
        with in_section("evaluate"):
            check_evaluation(self.measures, self.evaluation)

    def evaluation_of(self, model: str, benchmark: Benchmark) -> SamplingConfig:
        """How a model is sampled on a benchmark.

        The references of the held-out problems become teachers of their ranked groups; they do not count in pass@k.
        """
        include_reference = self.config.include_reference and benchmark.name == self.config.heldout
        return replace(self.evaluation, model=model, include_reference=include_reference)


def _refuse_keys_of_run(config: PipelineConfig) -> None:
    """A key that is overwritten by `run` would do nothing."""
    sections = {name: getattr(config, name) for name in ("sample", "evaluate", "train")}
    sections |= {f"teachers[{i}]": section for i, section in enumerate(config.teachers)}
    for section, values in sections.items():
        for name, instead in _SET_BY_RUN[section.split("[")[0]].items():
            if name in values:
                raise ConfigError(f"`{section}`: the key `{name}` is given by `run` itself: {instead}; leave it out")
