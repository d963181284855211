"""The `sample` stage: problems in, candidate groups out.

Texts are drawn model by model, in batches of problems of like length, and each batch is written to a journal at once, so that a
killed run samples nothing twice; the repair turns of a model follow its first draw. When all are there, the groups are put
together in the order of the problems. Problems stream from their input each time they are needed; no list of them is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from trl_rrtf.cluster import map_on_cluster
from trl_rrtf.errors import ConfigError, RowError
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.models.paths import model_fingerprint, model_name, require_model
from trl_rrtf.options import settings_of
from trl_rrtf.problems import check_problems, iterate_problems
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows.files import fingerprint, stream_rows
from trl_rrtf.rows.prompts import render_prompt
from trl_rrtf.rows.records import Candidate, CandidateGroup, Problem
from trl_rrtf.rows.repairs import renumbered
from trl_rrtf.rows.resumable import Journal
from trl_rrtf.rows.stage import RowStage
from trl_rrtf.rows.summary import Summary, of_this_run
from trl_rrtf.sampling.config import SampleArguments, SamplingConfig
from trl_rrtf.sampling.draws import Sampler, StreamingSampler
from trl_rrtf.sampling.engines import ENGINES
from trl_rrtf.sampling.extraction import extract_program
from trl_rrtf.sampling.repairs import REPAIR_LABELS, Places, Repairs, Turn, check_repairs
from trl_rrtf.sampling.sampler import make_draws, make_sampler

_WINDOW = 16
"""Batches among which problems are sorted by length."""


@dataclasses.dataclass(kw_only=True)
class SampleSummary(Summary):
    """What the `sample` stage did.

    Attributes:
        problems: Problems.
        candidates: Candidates of all of them, repairs and those of earlier runs included; references are not counted.
        that_compile: Candidates that are Python.
        that_differ: Different programs, counted within each problem.
        references: Reference solutions among the teachers.
        sampled_now: Texts that were drawn in this run of the stage.
        candidates_per_second: The same per second of wall-clock time, loading the models included.
        repairs: What repair turns did, a number per turn where a list stands; empty without any.
        usage: Name of a model -> requests, tokens and costs in this run, where its engine counts them.
        output: The candidate groups.
    """

    problems: int
    candidates: int
    that_compile: int
    that_differ: int
    references: int
    sampled_now: int = of_this_run()
    candidates_per_second: float = of_this_run(0.0)
    repairs: dict[str, Any] = dataclasses.field(default_factory=dict)
    usage: dict[str, dict[str, Any]] = of_this_run(default_factory=dict)
    output: str

    @property
    def share_that_compile(self) -> float:
        """Candidates that compile, of all."""
        return self.that_compile / max(1, self.candidates)

    @property
    def share_that_differ(self) -> float:
        """Candidates that differ from the others of their problem, of all."""
        return self.that_differ / max(1, self.candidates)

    def table(self) -> dict[str, Any]:
        """What to show: label -> value."""
        return {
            "problems": self.problems,
            "candidates": self.candidates,
            "that compile": f"{self.that_compile} ({self.share_that_compile:.1%})",
            "that differ": f"{self.that_differ} ({self.share_that_differ:.1%})",
            "references": self.references,
            **{REPAIR_LABELS[name]: value for name, value in self.repairs.items()},
            "sampled now": self.sampled_now,
            "candidates per second": self.candidates_per_second,
            **{f"usage of {model}": usage for model, usage in self.usage.items()},
            "output": self.output,
        }


def run_sample_command(arguments: SampleArguments, config: SamplingConfig, judging: JudgeConfig) -> SampleSummary:
    """`run_sample` with the options of the command line."""
    return run_sample(arguments, config, judging=judging)


def run_sample(
    arguments: SampleArguments,
    config: SamplingConfig,
    sampler: Sampler | None = None,
    judging: JudgeConfig | None = None,
) -> SampleSummary:
    """Samples candidates for every problem; an interrupted run goes on with the batch where it stopped.

    Args:
        arguments: Files, further models and temperatures.
        config: Model and sampling settings.
        sampler: A loaded model, the only one; by default those of the settings, each loaded when it is needed.
        judging: How repair turns run programs on public tests; by default `JudgeConfig()`. Refused where there are none.

    Returns:
        Problems, candidates, how many compile and differ, candidates per second, what repair turns did.

    Raises:
        LoadError: A model or the problems are not there.
        RowError: A row breaks the format; found before a model is loaded.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: Options contradict each other, or the output is an input; no problem has a public test to repair by.
        JudgeError: Too many programs could not be judged in repair turns.
    """
    return _SampleStage(arguments, config, sampler, judging or JudgeConfig()).run()


def require_models(models: Sequence[str], config: SamplingConfig) -> None:
    """Refuses models that are not there, or that their candidates could not be told apart by.

    Args:
        models: All models of a run.
        config: Its `engine` says whether they are folders here.

    Raises:
        LoadError: A folder is not there, or holds no model.
        ConfigError: Two models have one name.
    """
    names = [model_name(model) for model in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"`models`: candidates are told apart by their model's name, got {', '.join(names)}; rename a folder")
    if not ENGINES[config.engine].is_remote:
        for model in models:
            require_model(model)


class _SampleStage(RowStage[SampleSummary]):
    name = "sample"
    unit = "problem"
    summary_type = SampleSummary

    def __init__(
        self, arguments: SampleArguments, config: SamplingConfig, sampler: Sampler | None, judging: JudgeConfig
    ) -> None:
        super().__init__(arguments, config, judging)
        self._judging = judging
        self._arguments, self._config, self._sampler = arguments, config, sampler
        self._models = [config.model, *arguments.models]
        temperatures = arguments.temperatures or [config.temperature]
        self._draws = [_draws_of(config, model, temperature) for model in self._models for temperature in temperatures]
        self._loaded = _LoadedSampler(sampler)
        self._journal_path = Path(f"{arguments.output}.draws")
        self._sampled_now, self._seconds = 0, 0.0

    def check(self) -> int:
        is_remote = ENGINES[self._config.engine].is_remote
        if self._sampler is None:
            require_models(self._models, self._config)
        elif len(self._models) > 1:
            raise ConfigError("`models`: a loaded sampler is one model; leave `sampler` out to sample from several")
        if self._arguments.cluster and (is_remote or self._sampler is not None):
            raise ConfigError("`cluster`: an endpoint or a loaded sampler needs none; leave it out")
        arguments = self._arguments
        self._num_problems = check_problems(
            arguments.input, arguments.where, arguments.limit, skip_unusable=arguments.skip_unusable
        )
        for group in self._groups():  # checks the candidates that problems have already
            render_prompt(group, self._config.prompt_style)
        self._without_tests = check_repairs(arguments, self._judging)
        self._places = Places(len(self._draws), self._num_problems)
        self._repairs = Repairs(arguments, self._judging, self._places) if arguments.repair_turns else None
        self._repair_counts: dict[str, Any] = {}
        return self._num_problems * len(self._draws) * (1 if self._repairs is None else 1 + len(self._repairs.turns))

    def settings(self) -> dict[str, Any]:
        is_remote = ENGINES[self._config.engine].is_remote
        names = list(map(model_name, self._models))  # not the paths: the same model may be given by another one
        return {
            **settings_of(self._arguments, without=() if self._repairs else ("repair_turns", "public_tests")),
            **settings_of(self._config),
            **(settings_of(self._judging) if self._repairs else {}),
            "model": names[0],
            "models": names[1:],
            "input": fingerprint(self._arguments.input),
            "model_fingerprint": {} if is_remote else dict(zip(names, map(model_fingerprint, self._models), strict=True)),
        }

    def rows(self, done: int) -> Iterator[CandidateGroup]:
        started = time.monotonic()
        with contextlib.ExitStack() as closing:
            journal = closing.enter_context(Journal(self._journal_path))
            judge = None if self._repairs is None else closing.enter_context(Judge(self._judging))
            for number, config in enumerate(self._draws):
                self._draw_all(config, journal, first_place=self._places.of(0, number, 0))
                if judge is not None:
                    self._repair_all(number, config, journal, judge)
            self._seconds = time.monotonic() - started
            if self._repairs is not None:
                self._repair_counts = {**self._repairs.counts(journal), **self._without_tests}
            for index, group in enumerate(islice(self._groups(), done, None), start=done):
                yield self._with_candidates(group, index, journal)

    def throw_away(self) -> None:
        self._journal_path.unlink(missing_ok=True)

    def has_work_beside(self) -> bool:
        return self._journal_path.exists() and self._journal_path.stat().st_size > 0

    def clean_up(self) -> None:
        self._journal_path.unlink(missing_ok=True)

    def summary(self, rows_file: Path) -> SampleSummary:
        summary = SampleSummary(
            problems=0,
            candidates=0,
            that_compile=0,
            that_differ=0,
            references=0,
            sampled_now=self._sampled_now,
            candidates_per_second=round(self._sampled_now / max(self._seconds, 1e-9), 2),
            repairs=self._repair_counts,
            usage=self._loaded.usage,
            output=self._arguments.output,
        )
        for group in stream_rows(rows_file, CandidateGroup):
            programs = [candidate.program for candidate in group.candidates if candidate.source != "reference"]
            summary.problems += 1
            summary.candidates += len(programs)
            summary.that_compile += sum(map(_compiles, programs))
            summary.that_differ += len(set(programs))
            summary.references += len(group.candidates) - len(programs)
        return summary

    def _groups(self) -> Iterator[CandidateGroup]:
        arguments = self._arguments
        return map(
            _earlier_candidates,
            iterate_problems(arguments.input, arguments.where, arguments.limit, skip_unusable=arguments.skip_unusable),
        )

    def _draw_all(self, config: SamplingConfig, journal: Journal, first_place: int) -> None:
        """Draws what the journal lacks of one model at one temperature."""
        done = sum(first_place + index in journal for index in range(self._num_problems))
        self.progress.set_description(f"sample {model_name(config.model)} at {config.temperature:g}")
        self.progress.update(done)
        if done == self._num_problems:
            return
        drawn, started = 0, time.monotonic()
        for pieces in self._pieces(config, journal, self._batches_to_draw(config, journal, first_place)):
            new = sum(place not in journal for place in pieces)  # a batch that was done in part is repeated as a whole
            journal.add(pieces)
            drawn += sum(map(len, pieces.values()))
            self.progress.update(new)
            self.progress.set_postfix_str(f"{drawn / (time.monotonic() - started):.1f} candidates/s")
        self._sampled_now += drawn

    def _repair_all(self, number: int, config: SamplingConfig, journal: Journal, judge: Judge) -> None:
        """Does what the journal lacks of the repair turns of one model at one temperature."""
        assert self._repairs is not None
        is_streaming = ENGINES[config.engine].is_remote or isinstance(self._sampler, StreamingSampler)
        loaded: list[Sampler] = []

        def sampler() -> Sampler:
            loaded[:] = [self._loaded.of(config)]
            return loaded[0]

        try:
            for turn in self._repairs.turns:
                self.progress.set_description(f"repair turn {turn}, {model_name(config.model)} at {config.temperature:g}")
                for batch in _batches(self._groups(), config.batch_size):
                    places = {index: self._places.of(turn, number, index) for index in batch}
                    missing = {index: group for index, group in batch.items() if places[index] not in journal}
                    self.progress.update(len(batch) - len(missing))
                    if not missing:
                        continue
                    # One that runs a batch as a whole repeats it, as in the first draw: rounding depends on what shares it.
                    todo = missing if is_streaming else batch
                    for pieces in self._repairs.run_turn(turn, number, config, todo, journal, judge, sampler):
                        new = sum(place not in journal for place in pieces)
                        journal.add({place: piece.to_json() for place, piece in pieces.items()})
                        self._sampled_now += sum(len(piece.texts) for piece in pieces.values())
                        self.progress.update(new)
        finally:
            for one in loaded:
                self._loaded.count_usage(one, config)

    def _batches_to_draw(
        self, config: SamplingConfig, journal: Journal, first_place: int
    ) -> Iterator[dict[int, CandidateGroup]]:
        """The batches, by place in the journal, without those that are done."""
        for batch in _batches(self._groups(), config.batch_size):
            if any(first_place + index not in journal for index in batch):
                yield {first_place + index: group for index, group in batch.items()}

    def _pieces(
        self, config: SamplingConfig, journal: Journal, batches: Iterator[dict[int, CandidateGroup]]
    ) -> Iterator[dict[int, list[str]]]:
        """Draws batches here or on the cluster; yields them as they are done."""
        if self._arguments.cluster:
            items = ((min(batch), [[place, group.to_row()] for place, group in batch.items()]) for batch in batches)
            drawer = partial(_BatchDrawer, config)
            for _, pieces in map_on_cluster(self._arguments.cluster, drawer, items, whole_machines=True):
                yield dict(pieces)
            return
        sampler = self._loaded.of(config)
        try:
            for batch in batches:
                yield from draw(batch, config, sampler, journal)
        finally:
            self._loaded.count_usage(sampler, config)

    def _with_candidates(self, group: CandidateGroup, index: int, journal: Journal) -> CandidateGroup:
        """Puts the new candidates behind those that the group has: all first draws, then the repairs, turn by turn."""
        candidates = list(group.candidates)
        last: dict[tuple[int, int], int] = {}  # (draw, chain) -> index of its last candidate
        for turn in (0, *(self._repairs.turns if self._repairs else ())):
            for number, config in enumerate(self._draws):
                piece = journal[self._places.of(turn, number, index)]
                texts = Turn.from_json(piece).texts if turn else dict(enumerate(piece))
                for chain, text in texts.items():
                    candidate = Candidate(
                        program=extract_program(text, group),
                        source=config.source,
                        model=model_name(config.model),
                        raw=text,
                        repair_of=last.get((number, chain)),
                    )
                    last[number, chain] = len(candidates)
                    candidates.append(candidate)
        has_reference = any(candidate.source == "reference" for candidate in group.candidates)
        if self._config.include_reference and group.reference_solution is not None and not has_reference:
            candidates.append(Candidate(program=group.reference_solution, source="reference", model="reference"))
        return CandidateGroup.from_problem(group, _without_repeats(candidates) if self._arguments.deduplicate else candidates)


def _draws_of(config: SamplingConfig, model: str, temperature: float) -> SamplingConfig:
    """The settings of one model at one temperature; greedy ones among several draw once."""
    is_one_of_several = temperature != config.temperature
    num_generations = 1 if temperature == 0 and is_one_of_several else config.num_generations
    return replace(config, model=model, temperature=temperature, num_generations=num_generations)


def _earlier_candidates(problem: Problem) -> CandidateGroup:
    """A problem row that has candidates already keeps them; a new one starts with none."""
    present = [name for name in CandidateGroup.COLUMNS if name in problem.extra]
    if present and len(present) < len(CandidateGroup.COLUMNS):
        missing = ", ".join(f"`{name}`" for name in CandidateGroup.COLUMNS if name not in present)
        raise RowError(f"problem {problem.problem_id}", None, f"a candidate group also needs {missing}")
    if present:
        return CandidateGroup.from_row(problem.to_row(), f"problem {problem.problem_id}")
    return CandidateGroup.from_problem(problem, [])


def _without_repeats(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Equal programs once; a teacher's program stays a teacher's, also where a student wrote the same."""
    teachers_first = sorted(range(len(candidates)), key=lambda index: not candidates[index].is_teachers)
    kept_of = {candidates[index].program: index for index in reversed(teachers_first)}
    kept = [index for index, candidate in enumerate(candidates) if kept_of[candidate.program] == index]
    equals = {index: kept_of[candidate.program] for index, candidate in enumerate(candidates)}
    column = renumbered([candidate.repair_of for candidate in candidates], kept, equals)
    return [replace(candidates[index], repair_of=repaired) for index, repaired in zip(kept, column, strict=True)]


class _LoadedSampler:
    """The model that draws now, loaded when it is needed; the one before it is let go."""

    def __init__(self, sampler: Sampler | None) -> None:
        self._sampler, self._given, self._model = sampler, sampler is not None, ""
        self.usage: dict[str, dict[str, Any]] = {}

    def of(self, config: SamplingConfig) -> Sampler:
        if not self._given and (self._sampler is None or self._model != config.model):
            self._sampler = None
            self._sampler, self._model = make_sampler(config), config.model
        assert self._sampler is not None
        return self._sampler

    def count_usage(self, sampler: Sampler, config: SamplingConfig) -> None:
        """Tokens and costs, where the sampler counts them."""
        if hasattr(sampler, "usage"):
            self.usage[model_name(config.model)] = sampler.usage()


class _BatchDrawer:
    """Draws batches on one machine of a cluster."""

    def __init__(self, config: SamplingConfig) -> None:
        self._config, self._sampler = config, make_sampler(config)

    def __call__(self, rows: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, list[str]]]:
        batch = {place: CandidateGroup.from_row(row, f"problem {row['problem_id']}") for place, row in rows}
        return [piece for pieces in draw(batch, self._config, self._sampler) for piece in pieces.items()]


def _batches(groups: Iterator[CandidateGroup], size: int) -> Iterator[dict[int, CandidateGroup]]:
    """Batches of problems of like length, by their index in the file; the same however much of a run is done."""
    indexed = enumerate(groups)
    while window := list(islice(indexed, size * _WINDOW)):
        window.sort(key=lambda entry: len(str(entry[1].prompt)))
        for start in range(0, len(window), size):
            yield dict(window[start : start + size])


def draw(
    todo: dict[int, CandidateGroup], config: SamplingConfig, sampler: Sampler, done: Container[int] = ()
) -> Iterator[dict[int, list[str]]]:
    """Draws the texts of a batch of problems, by their places.

    Args:
        todo: Place -> problem.
        config: Sampling settings.
        sampler: The model.
        done: Places that are done. A sampler that answers prompt by prompt (an endpoint) leaves them out; one that runs the
            batch as a whole repeats it, since rounding depends on what shares a batch.

    Yields:
        Place -> texts: all at once, or as each prompt is answered.
    """
    if isinstance(sampler, StreamingSampler):
        todo = {place: problem for place, problem in todo.items() if place not in done}
    prompts = [render_prompt(problem, config.prompt_style) for problem in todo.values()]
    draws = make_draws(config, [problem.problem_id for problem in todo.values()], model_name(config.model))
    places = list(todo)
    if isinstance(sampler, StreamingSampler):
        for index, texts in sampler.stream(prompts, draws):
            yield {places[index]: texts}
    else:
        yield dict(zip(places, sampler.sample(prompts, draws), strict=True))


def _compiles(program: str) -> bool:
    """Whether a program parses; only for the summary, the judge compiles in a contained process."""
    try:
        parse_program(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(program.strip())
