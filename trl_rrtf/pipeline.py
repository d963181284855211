"""All stages in a row, from one YAML file: problems -> candidates -> verdicts -> ranked groups -> checkpoint -> evaluation.

Each step reads and writes files in the output folder and skips what stands there already, so a run that was killed goes on
where it stopped, and ends with the same result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.evaluation import EvaluateArguments, run_evaluate
from trl_rrtf.evaluation.stage import show_interval
from trl_rrtf.groups import Messages, RankedGroup
from trl_rrtf.judging.config import JudgeArguments, JudgeConfig
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.model_paths import require_model
from trl_rrtf.problems import iterate_problems
from trl_rrtf.ranking import RankArguments, RankConfig, run_rank
from trl_rrtf.row_files import ResumableWriter, fingerprint, stream_rows, write_json
from trl_rrtf.sampling import SampleArguments, Sampler, SamplingConfig, make_sampler, run_sample
from trl_rrtf.training.stage import TrainArguments, run_train

if TYPE_CHECKING:
    from trl import ModelConfig

    from trl_rrtf.training.config import RRTFConfig


@dataclass
class PipelineConfig:
    """One YAML file for all stages.

    Attributes:
        output_dir: Where everything goes.
        model: The student.
        problems: Problems with tests.
        train_where: Which problems to train on, such as `split=train`.
        train_limit: The first so many of them, or None for all.
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
    """

    output_dir: str = field(metadata={"help": "Where everything goes; run again with the same folder to go on."})
    model: str = field(metadata={"help": "The student: a folder, or a Hub id."})
    problems: str = field(metadata={"help": "Problems with tests: a file, a Hub data set id, or `humaneval`."})
    train_where: str | None = field(default=None, metadata={"help": "Problems to train on, such as `split=train`."})
    train_limit: int | None = field(default=None, metadata={"help": "Only the first so many of them."})
    heldout: str | None = field(
        default=None, metadata={"help": "Name of the benchmark whose candidates make the held-out ranked groups."}
    )
    rounds: int = field(
        default=1,
        metadata={
            "help": "Sample, rank and train so often, each time from the newest checkpoint; stops when pass@k on `heldout` no "
            "longer rises, and the best round's model is the result."
        },
    )
    keep_earlier_groups: bool = field(
        default=True, metadata={"help": "Whether a round also trains on the ranked groups of the rounds before it."}
    )
    prompt_style: str = field(default="chat", metadata={"help": "How a problem becomes a prompt, in every stage."})
    include_reference: bool = field(default=True, metadata={"help": "Whether reference solutions are teachers."})
    sample: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "The student's candidates, as in `trl-rrtf sample`."}
    )
    teachers: list[dict[str, Any]] = field(default_factory=list, metadata={"help": "One `sample` section per teacher model."})
    judge: dict[str, Any] = field(default_factory=dict, metadata={"help": "As in `trl-rrtf judge`."})
    cluster: str | None = field(
        default=None, metadata={"help": "Sample and judge the training problems on a Ray cluster: `auto` or `host:port`."}
    )
    rank: dict[str, Any] = field(default_factory=dict, metadata={"help": "As in `trl-rrtf rank`."})
    train: dict[str, Any] = field(default_factory=dict, metadata={"help": "As in `trl-rrtf train`."})
    evaluate: dict[str, Any] = field(default_factory=dict, metadata={"help": "Sampling of the evaluation, and `k`."})
    benchmarks: list[dict[str, Any]] = field(
        default_factory=list, metadata={"help": "Evaluated before and after: `name`, `problems`, `where`, `limit`."}
    )


def load_pipeline_config(arguments: Sequence[str]) -> PipelineConfig:
    """Reads `--config FILE.yaml` and the options that override it, nested ones with a dot.

    Raises:
        ConfigError: An option is unknown, missing or has no value.
    """
    import yaml

    values: dict[str, Any] = {}
    options = list(zip(arguments[::2], arguments[1::2], strict=False))
    if len(arguments) % 2 or not all(name.startswith("--") for name, _ in options):
        raise ConfigError(f"expected `--config FILE.yaml` and pairs of `--field value`, got {' '.join(arguments)}")
    for name, value in options:
        if name == "--config":
            try:
                values = {**(yaml.safe_load(Path(value).read_text(encoding="utf-8")) or {}), **values}
            except OSError as error:
                raise ConfigError(f"`config`: cannot read `{value}`: {error.strerror}; check the path") from error
            except yaml.YAMLError as error:
                raise ConfigError(f"`config`: `{value}` is not YAML: {error}") from error
    for name, value in options:
        if name != "--config":
            *sections, last = name.removeprefix("--").split(".")
            section = values
            for key in sections:
                section = section.setdefault(key, {})
            section[last] = yaml.safe_load(value)
    config: PipelineConfig = _build(PipelineConfig, values, "config")
    return config


def _build(config_type: Any, values: dict[str, Any], section: str) -> Any:
    """Fills a dataclass from a section of the file; an unknown or missing key is named."""
    known = {option.name: option for option in fields(config_type)}
    for name in values:
        if name not in known:
            raise ConfigError(f"`{section}`: unknown key `{name}`; the keys are {', '.join(known)}")
    for name, option in known.items():
        if name not in values and option.default is MISSING and option.default_factory is MISSING:
            raise ConfigError(f"`{section}`: the key `{name}` is missing; give it in the file or as `--{name} value`")
    return config_type(**values)


_SAMPLING_RUN = ("models", "temperatures", "deduplicate")
"""Keys of a sampling section that belong to the run and not to one model's draws."""


def _sampling(section: dict[str, Any], name: str) -> tuple[SamplingConfig, dict[str, Any]]:
    """The settings of a model, and the options of its run."""
    options = {key: section[key] for key in _SAMPLING_RUN if key in section}
    config = _build(SamplingConfig, {key: value for key, value in section.items() if key not in options}, name)
    SampleArguments(problems="", output="", **options)
    return config, options


def _check_problems(source: str, where: str | None, limit: int | None) -> None:
    for _ in iterate_problems(source, where, limit):
        pass


class _LazySampler:
    """Loads the model at the first prompt, so that a resumed run does not load what it does not need."""

    def __init__(self, config: SamplingConfig) -> None:
        self._config = config
        self._sampler: Sampler | None = None

    def sample(self, prompts: Sequence[str | Messages], **options: Any) -> list[list[str]]:
        if self._sampler is None:
            self._sampler = make_sampler(self._config)
        return self._sampler.sample(prompts, **options)


class Pipeline:
    """A run: the settings of each stage, checked before any work, and the files between the stages.

    Args:
        config: The YAML file.

    Raises:
        ConfigError: A setting is wrong; named with its section.
        LoadError: A model or a problem file is not there.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.folder = Path(config.output_dir)
        shared = {"prompt_style": config.prompt_style}
        require_model(config.model)
        self.student = _sampling({**shared, "model": config.model, **config.sample}, "sample")
        self.teachers = [
            _sampling({**shared, "source": "teacher", **section}, f"teachers[{i}]") for i, section in enumerate(config.teachers)
        ]
        for i, (teacher, _) in enumerate(self.teachers):
            if teacher.engine != "openai":
                require_model(teacher.model, f"teachers[{i}].model")
        self.judge = _build(JudgeConfig, config.judge, "judge")
        self.rank = _build(RankConfig, {**shared, **config.rank}, "rank")
        evaluate = dict(config.evaluate)
        self.k = evaluate.pop("k", [1])
        self.evaluation = {**shared, **evaluate}
        self._evaluation_config(config.model)
        self._train_configs(self.folder / "model")
        for benchmark in self._benchmarks():
            _check_problems(benchmark["problems"], benchmark.get("where"), benchmark.get("limit"))
        _check_problems(config.problems, config.train_where, config.train_limit)
        names = [benchmark["name"] for benchmark in self._benchmarks()]
        if config.heldout is not None and config.heldout not in names:
            raise ConfigError(
                f"`heldout`: expected the name of a benchmark ({', '.join(names) or 'there is none'}), got {config.heldout}"
            )
        if config.rounds < 1 or (config.rounds > 1 and config.heldout is None):
            raise ConfigError(
                f"`rounds`: expected at least 1, and above 1 a benchmark in `heldout` that tells when to stop; got "
                f"{config.rounds} and heldout={config.heldout}"
            )

    def run(self) -> dict[str, Any]:
        """Runs what is left to do.

        Returns:
            The results: evaluations and ranking metrics before and after, of each round, seconds per step.
        """
        sampler = _LazySampler(self.student[0])
        judged = self._judged_candidates(self._round(1), self.config.model, sampler)
        before = self._evaluate("before", self.config.model, sampler)
        heldout_groups = None
        if self.config.heldout:
            heldout_groups = self._rank(self.folder, "heldout", self._evaluation_file("before", self.config.heldout))
        del sampler  # frees the model's memory before training
        model, rounds, train_groups = self.config.model, list[dict[str, Any]](), list[Path]()
        for number in range(1, self.config.rounds + 1):
            if number > 1:
                judged = self._judged_candidates(self._round(number), model, None)
            train_groups.append(self._rank(self._round(number), "train", judged))
            if not self.config.keep_earlier_groups:
                train_groups = train_groups[-1:]
            training = self._train(number, model, train_groups, heldout_groups)
            trained = str(self._round(number) / "model")
            moment = "after" if self.config.rounds == 1 else f"round-{number}"
            after = self._evaluate(moment, trained, _LazySampler(self._evaluation_config(trained)))
            rounds.append({"model": trained, "pass@k": _pass_at_k(after), "training": training})
            if self._score(rounds[-1]["pass@k"]) <= self._score(rounds[-2]["pass@k"] if number > 1 else _pass_at_k(before)):
                break
            model = trained
        best = max(rounds, key=lambda entry: self._score(entry["pass@k"]))  # the first of equal ones
        results = {
            "pass@k before": _pass_at_k(before),
            "pass@k after": best["pass@k"],
            "held-out groups before": rounds[0]["training"]["eval first"],
            "held-out groups after": best["training"]["eval last"],
            "model": best["model"],
            "rounds": [{"model": entry["model"], "pass@k": entry["pass@k"]} for entry in rounds],
            "seconds": {name: entry["seconds"] for name, entry in self._finished_steps().items()},
        }
        write_json(self.folder / "results.json", results)
        return results

    def _round(self, number: int) -> Path:
        """Folder of a round; a run of one round has none of its own."""
        return self.folder if self.config.rounds == 1 else self.folder / f"round-{number}"

    def _score(self, pass_at_k: dict[str, Any]) -> float:
        """What decides whether another round is worth its time."""
        if self.config.heldout is None:
            return 0.0
        mean: float = pass_at_k[self.config.heldout][f"pass@{self.k[0]}"]["mean"]
        return mean

    def _train(self, number: int, model: str, groups: list[Path], heldout_groups: Path | None) -> dict[str, Any]:
        """Trains a round's checkpoint from that of the round before."""
        folder = self._round(number)
        dataset = groups[0] if len(groups) == 1 else self._join(groups, folder / "ranked" / "train_all.jsonl")
        train, model_config = self._train_configs(folder / "model")
        arguments = TrainArguments(
            dataset=str(dataset), model=model, eval_dataset=str(heldout_groups) if heldout_groups else None
        )
        return self._step(f"{self._prefix(folder)}train", lambda: run_train(arguments, train, model_config))

    def _join(self, files: list[Path], output: Path) -> Path:
        settings = {"groups": [fingerprint(file) for file in files]}
        with ResumableWriter(output, settings) as writer:
            if not writer.finished:
                rows = chain.from_iterable(stream_rows(file, RankedGroup) for file in files)
                writer.write(islice(rows, writer.rows_done, None))
                writer.finish()
        return output

    def _prefix(self, folder: Path) -> str:
        return "" if folder == self.folder else f"{folder.name}: "

    def _judged_candidates(self, folder: Path, model: str, sampler: Sampler | None) -> Path:
        """Training problems -> candidates of the student, of each teacher and references -> verdicts."""
        candidates = folder / "candidates" / "student.jsonl"
        config, options = self.student
        student = SampleArguments(
            problems=self.config.problems,
            output=str(candidates),
            where=self.config.train_where,
            limit=self.config.train_limit,
            cluster=None if config.engine == "openai" else self.config.cluster,
            **options,
        )
        config = replace(config, model=model, include_reference=self.config.include_reference)
        prefix = self._prefix(folder)
        self._step(
            f"{prefix}sample", lambda: run_sample(student, config, None if student.models or student.cluster else sampler)
        )
        for i, (teacher, options) in enumerate(self.teachers, start=1):
            earlier, candidates = candidates, folder / "candidates" / f"teacher{i}.jsonl"
            cluster = None if teacher.engine == "openai" else self.config.cluster
            arguments = SampleArguments(problems=str(earlier), output=str(candidates), cluster=cluster, **options)
            self._step(f"{prefix}sample teacher {i}", partial(run_sample, arguments, teacher))
        judged = folder / "judged.jsonl"
        arguments_of_judge = JudgeArguments(input=str(candidates), output=str(judged), cluster=self.config.cluster)
        self._step(f"{prefix}judge", lambda: run_judge(arguments_of_judge, self.judge))
        return judged

    def _rank(self, folder: Path, split: str, judged: Path) -> Path:
        """Verdicts -> ranked groups."""
        ranked = folder / "ranked" / f"{split}.jsonl"
        self._step(
            f"{self._prefix(folder)}rank {split}",
            lambda: run_rank(RankArguments(input=str(judged), output=str(ranked)), self.rank),
        )
        return ranked

    def _evaluate(self, moment: str, model: str, sampler: Sampler) -> dict[str, dict[str, Any]]:
        """pass@k of a model on each benchmark."""
        results = {}
        for benchmark in self._benchmarks():
            name = benchmark["name"]
            arguments = EvaluateArguments(
                problems=benchmark["problems"],
                output=str(self.folder / "evaluation" / f"{name}.{moment}.json"),
                where=benchmark.get("where"),
                limit=benchmark.get("limit"),
                k=self.k,
            )
            # The references of the held-out problems become teachers of their ranked groups; they do not count in pass@k.
            sampling = replace(
                self._evaluation_config(model), include_reference=self.config.include_reference and name == self.config.heldout
            )
            results[name] = self._step(
                f"evaluate {moment}: {name}", partial(run_evaluate, arguments, sampling, self.judge, sampler)
            )
        return results

    def _evaluation_file(self, moment: str, benchmark: str) -> Path:
        return self.folder / "evaluation" / f"{benchmark}.{moment}.judged.jsonl"

    def _benchmarks(self) -> list[dict[str, Any]]:
        for i, benchmark in enumerate(self.config.benchmarks):
            unknown = set(benchmark) - {"name", "problems", "where", "limit"}
            if unknown or not {"name", "problems"} <= set(benchmark):
                raise ConfigError(
                    f"`benchmarks[{i}]`: expected `name`, `problems` and optional `where`, `limit`, got {benchmark}"
                )
        return self.config.benchmarks

    def _evaluation_config(self, model: str) -> SamplingConfig:
        config: SamplingConfig = _build(SamplingConfig, {**self.evaluation, "model": model}, "evaluate")
        return config

    def _train_configs(self, output_dir: Path) -> tuple[RRTFConfig, ModelConfig]:
        from trl import ModelConfig, TrlParser

        from trl_rrtf.training.config import RRTFConfig

        values = {"output_dir": str(output_dir), **self.config.train}
        try:
            train, model = TrlParser([RRTFConfig, ModelConfig]).parse_dict(values)
        except (ValueError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"`train`: {error}") from error
        return train, model

    def _step(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Does one step and notes its time; a step that is finished already keeps the time of the run that did it."""
        from rich.console import Console

        Console(stderr=True).rule(f"[bold]{name}")
        started = time.monotonic()
        summary = work()
        steps = self._finished_steps()
        if name not in steps:
            steps[name] = {"seconds": round(time.monotonic() - started, 1), "summary": summary}
            write_json(self.folder / "steps.json", steps)
        return summary

    def _finished_steps(self) -> dict[str, Any]:
        path = self.folder / "steps.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _pass_at_k(evaluations: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: result["pass@k"] for name, result in evaluations.items()}


def run_pipeline(config: PipelineConfig) -> dict[str, Any]:
    """Runs all stages and prints the table of results.

    Args:
        config: The YAML file, see [`load_pipeline_config`][trl_rrtf.pipeline.load_pipeline_config].

    Returns:
        The results, also written to `results.json` in the output folder.
    """
    pipeline = Pipeline(config)
    results = pipeline.run()
    _print_results(results, pipeline.folder)
    return results


def _print_results(results: dict[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="RRTF: before and after training")
    for name, justify in (("measure", "left"), ("before", "right"), ("after", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, before in results["pass@k before"].items():
        for k, value in before.items():
            table.add_row(f"{k}, {name}", show_interval(value), show_interval(results["pass@k after"][name][k]))
    for label, key in (
        ("ranking accuracy, held-out groups", "eval_ranking/accuracy"),
        ("ranking margin (nats per token)", "eval_ranking/margin"),
        ("mean log-probability of the best", "eval_logps/best"),
        ("mean log-probability of the worst", "eval_logps/worst"),
    ):
        before, after = results["held-out groups before"], results["held-out groups after"]
        if key in before and key in after:
            table.add_row(label, f"{before[key]:.3f}", f"{after[key]:.3f}")
    rounds = Table(title="pass@k by round")
    for name in ("round", *results["pass@k before"]):
        rounds.add_column(name)
    for i, entry in enumerate(results["rounds"], start=1):
        shown = [", ".join(f"{k} {show_interval(value)}" for k, value in values.items()) for values in entry["pass@k"].values()]
        rounds.add_row(f"{i}{' (best)' if entry['model'] == results['model'] else ''}", *shown)
    times = Table(title="Seconds per step")
    times.add_column("step")
    times.add_column("seconds", justify="right")
    for name, seconds in results["seconds"].items():
        times.add_row(name, f"{seconds:.0f}")
    times.add_row("all", f"{sum(results['seconds'].values()):.0f}")
    console = Console()
    console.print(table)
    if len(results["rounds"]) > 1:
        console.print(rounds)
    console.print(times)
    for label, path in (
        ("trained model, tokenizer, card", results["model"]),
        ("candidates", Path(results["model"]).with_name("candidates")),
        ("verdicts", Path(results["model"]).with_name("judged.jsonl")),
        ("ranked groups", Path(results["model"]).with_name("ranked")),
        ("evaluations", folder / "evaluation"),
        ("this table as JSON", folder / "results.json"),
    ):
        console.print(f"{label}: {path}")
