"""All stages in a row: problems -> candidates -> verdicts -> ranked groups -> checkpoint -> evaluation.

Each step reads and writes files in the output folder and skips what stands there already, so a run that was killed goes on
where it stopped, and ends with the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from trl_rrtf.evaluation import run_evaluate
from trl_rrtf.judging.config import JudgeArguments
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.pipeline.config import PipelineConfig
from trl_rrtf.pipeline.plan import Plan
from trl_rrtf.pipeline.results import PassAtK, PipelineResults, Round
from trl_rrtf.pipeline.tables import print_results
from trl_rrtf.ranking import RankArguments, run_rank
from trl_rrtf.rows.files import fingerprint, read_object, stream_rows, write_json
from trl_rrtf.rows.records import Messages, RankedGroup
from trl_rrtf.rows.resumable import OtherSettingsError, ResumableWriter, output_lock
from trl_rrtf.rows.summary import Summary
from trl_rrtf.sampling import Sampler, SamplingConfig, make_sampler, run_sample
from trl_rrtf.sampling.draws import Draws, room_of
from trl_rrtf.sampling.engines import ENGINES
from trl_rrtf.training.options import TrainArguments
from trl_rrtf.training.stage import TrainSummary, run_train

SummaryT = TypeVar("SummaryT", bound=Summary)


def run_pipeline(config: PipelineConfig) -> PipelineResults:
    """Runs all stages and prints the table of results.

    Args:
        config: The YAML file, see [`load_pipeline_config`][trl_rrtf.pipeline.load_pipeline_config].

    Returns:
        The results, also written to `results.json` in the output folder.

    Raises:
        ConfigError: A setting is wrong; section and key are named, before any work.
        LoadError: A model or a problem file is not there.
        OutputError: The folder cannot be written, or another run writes it.
    """
    plan = Plan.parse(config)
    with output_lock(plan.folder):
        results = Pipeline(plan).run()
    print_results(results, plan.folder)
    return results


class _LazySampler:
    """Loads the model at the first prompt, so that a resumed run does not load what it does not need."""

    def __init__(self, config: SamplingConfig) -> None:
        self._config = config
        self._sampler: Sampler | None = None

    def sample(self, prompts: Sequence[str | Messages], draws: Draws) -> list[list[str]]:
        return self._loaded().sample(prompts, draws)

    def room_for(self, prompt: str | Messages) -> int | None:
        return room_of(self._loaded(), prompt)

    def _loaded(self) -> Sampler:
        if self._sampler is None:
            self._sampler = make_sampler(self._config)
        return self._sampler


def _loaded_when_needed(config: SamplingConfig) -> Sampler | None:
    """A model for several steps; None where it runs elsewhere, and each step asks for itself."""
    return None if ENGINES[config.engine].is_remote else _LazySampler(config)


class Pipeline:
    """A run: the steps of a plan, and the files between them.

    Args:
        plan: What is to be done, checked.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._config = plan.config
        self._folder = plan.folder

    def run(self) -> PipelineResults:
        """Runs what is left to do."""
        sampler = _loaded_when_needed(self._plan.student.sampling)
        judged = self._judged_candidates(self._round(1), self._config.model, sampler)
        before = self._evaluate("before", self._config.model, self._evaluation_sampler(self._config.model, sampler))
        heldout_groups = None
        if self._config.heldout:
            heldout_groups = self._rank(self._folder, "heldout", self._evaluation_file("before", self._config.heldout))
        del sampler  # frees the model's memory before training
        model, rounds, train_groups = self._config.model, list[Round](), list[Path]()
        for number in range(1, self._config.rounds + 1):
            if number > 1:
                judged = self._judged_candidates(self._round(number), model, None)
            train_groups.append(self._rank(self._round(number), "train", judged))
            if not self._config.keep_earlier_groups:
                train_groups = train_groups[-1:]
            training = self._train(number, model, train_groups, heldout_groups)
            trained = str(self._round(number) / "model")
            moment = "after" if self._config.rounds == 1 else f"round-{number}"
            after = self._evaluate(moment, trained, self._evaluation_sampler(trained, None))
            rounds.append(Round(trained, after, training))
            if self._decisive(after) <= self._decisive(rounds[-2].pass_at_k if number > 1 else before):
                break
            model = trained
        results = PipelineResults(
            before=before,
            rounds=rounds,
            best=max(rounds, key=lambda entry: self._decisive(entry.pass_at_k)),  # the first of equal ones
            chosen_on=self._config.heldout if len(rounds) > 1 else None,
            seconds={name: entry["seconds"] for name, entry in self._finished_steps().items()},
        )
        write_json(self._folder / "results.json", results.to_json())
        return results

    def _round(self, number: int) -> Path:
        """Folder of a round; a run of one round has none of its own."""
        return self._folder if self._config.rounds == 1 else self._folder / f"round-{number}"

    def _decisive(self, pass_at_k: PassAtK) -> float:
        """What decides whether another round is worth its time."""
        if self._config.heldout is None:
            return 0.0
        return pass_at_k[self._config.heldout][self._plan.measures.k[0]].mean

    def _train(self, number: int, model: str, groups: list[Path], heldout_groups: Path | None) -> TrainSummary:
        """Trains a round's checkpoint from that of the round before."""
        folder = self._round(number)
        dataset = groups[0] if len(groups) == 1 else self._join(groups, folder / "ranked" / "train_all.jsonl")
        arguments = TrainArguments(str(dataset), model, str(heldout_groups) if heldout_groups else None)
        config = self._plan.train.config(folder / "model")
        return self._step(f"{self._prefix(folder)}train", lambda: run_train(arguments, config, self._plan.train.model))

    def _join(self, files: list[Path], output: Path) -> Path:
        settings = {"groups": [fingerprint(file) for file in files]}
        with ResumableWriter(output, settings) as writer:
            if not writer.finished:
                rows = chain.from_iterable(stream_rows(file, RankedGroup) for file in files)
                for row in islice(rows, writer.rows_done, None):
                    writer.write([row])
                writer.finish()
        return output

    def _prefix(self, folder: Path) -> str:
        return "" if folder == self._folder else f"{folder.name}: "

    def _judged_candidates(self, folder: Path, model: str, sampler: Sampler | None) -> Path:
        """Training problems -> candidates of the student, of each teacher and references -> verdicts."""
        prefix, config, student = self._prefix(folder), self._config, self._plan.student
        candidates = folder / "candidates" / "student.jsonl"
        selection = {"where": config.train_where, "limit": config.train_limit}
        arguments = student.files(config.problems, candidates, config.cluster, **selection)
        sampling = replace(student.sampling, model=model, include_reference=config.include_reference)
        loaded = None if arguments.models or arguments.cluster else sampler
        judging = self._plan.judge_of_repairs(arguments)
        self._step(f"{prefix}sample", lambda: run_sample(arguments, sampling, loaded, judging))
        for i, teacher in enumerate(self._plan.teachers, start=1):
            earlier, candidates = candidates, folder / "candidates" / f"teacher{i}.jsonl"
            files = teacher.files(str(earlier), candidates, config.cluster)
            judging = self._plan.judge_of_repairs(files)
            self._step(f"{prefix}sample teacher {i}", partial(run_sample, files, teacher.sampling, judging=judging))
        judged = folder / "judged.jsonl"
        to_judge = JudgeArguments(input=str(candidates), output=str(judged), cluster=config.cluster)
        self._step(f"{prefix}judge", lambda: run_judge(to_judge, self._plan.judge))
        return judged

    def _rank(self, folder: Path, split: str, judged: Path) -> Path:
        """Verdicts -> ranked groups."""
        ranked = folder / "ranked" / f"{split}.jsonl"
        arguments = RankArguments(input=str(judged), output=str(ranked))
        self._step(f"{self._prefix(folder)}rank {split}", lambda: run_rank(arguments, self._plan.rank))
        return ranked

    def _evaluate(self, moment: str, model: str, sampler: Sampler | None) -> PassAtK:
        """pass@k of a model on each benchmark."""
        results: PassAtK = {}
        for benchmark in self._plan.benchmarks:
            arguments = replace(
                self._plan.measures,
                input=benchmark.problems,
                output=str(self._folder / "evaluation" / f"{benchmark.name}.{moment}.json"),
                where=benchmark.where,
                limit=benchmark.limit,
            )
            sampling = self._plan.evaluation_of(model, benchmark)
            evaluate = partial(run_evaluate, arguments, sampling, self._plan.judge, sampler)
            results[benchmark.name] = self._step(f"evaluate {moment}: {benchmark.name}", evaluate).pass_at_k
        return results

    def _evaluation_sampler(self, model: str, students: Sampler | None) -> Sampler | None:
        """The model for an evaluation: the student's as it is loaded already, where the evaluation runs it in the same way."""
        student, evaluation = self._plan.student.sampling, replace(self._plan.evaluation, model=model)
        ways = [(config.model, config.engine, ENGINES[config.engine].options_in(config)) for config in (student, evaluation)]
        return students if students is not None and ways[0] == ways[1] else _loaded_when_needed(evaluation)

    def _evaluation_file(self, moment: str, benchmark: str) -> Path:
        return self._folder / "evaluation" / f"{benchmark}.{moment}.judged.jsonl"

    def _step(self, name: str, work: Callable[[], SummaryT]) -> SummaryT:
        """Does one step and notes its time; a step that is finished already keeps the time of the run that did it."""
        Console(stderr=True).rule(f"[bold]{name}")
        started = time.monotonic()
        try:
            summary = work()
        except OtherSettingsError as error:
            advice = f"delete the folder `{self._folder}`, or choose another `output_dir`"
            raise OtherSettingsError(error.what, advice) from None
        steps = self._finished_steps()
        if name not in steps:
            steps[name] = {"seconds": round(time.monotonic() - started, 1), "summary": summary.to_json()}
            write_json(self._folder / "steps.json", steps)
        return summary

    def _finished_steps(self) -> dict[str, Any]:
        path = self._folder / "steps.json"
        steps: dict[str, Any] = read_object(path, "remove it; only the steps' times are lost") if path.exists() else {}
        return steps
