"""The `sample` stage: problems in, candidate groups out.

Texts are drawn model by model, in batches of problems of like length, and each batch is written to a journal at once, so that a
killed run samples nothing twice. When all are there, the groups are put together in the order of the problems. Problems stream
from their source each time they are needed; no list of them is kept.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trl_rrtf.cluster import map_on_cluster
from trl_rrtf.errors import ConfigError, LoadError, RowError
from trl_rrtf.groups import CandidateGroup, Problem
from trl_rrtf.model_paths import require_model
from trl_rrtf.problems import iterate_problems
from trl_rrtf.prompts import render_prompt
from trl_rrtf.python_source import parse_program
from trl_rrtf.row_files import Journal, ResumableWriter, fingerprint, stream_rows
from trl_rrtf.sampling.config import SampleArguments, SamplingConfig
from trl_rrtf.sampling.extraction import extract_program
from trl_rrtf.sampling.sampler import Sampler, StreamingSampler, candidate_seeds, make_sampler

RAW_COLUMN = "raw_completions"
"""Column with what the models wrote, before extraction; null for references."""

_WITHOUT_EFFECT_ON_ROWS = (
    "base_url",
    "api_key_env",
    "max_concurrency",
    "requests_per_minute",
    "max_retries",
    "request_timeout",
    "input_price",
    "output_price",
)
"""Settings that may differ when a run goes on."""

_FILES_AND_MACHINES = ("problems", "output", "overwrite", "cluster")

_WINDOW = 16
"""Batches among which problems are sorted by length."""


def run_sample(arguments: SampleArguments, config: SamplingConfig, sampler: Sampler | None = None) -> dict[str, Any]:
    """Samples candidates for every problem; an interrupted run goes on with the batch where it stopped.

    Args:
        arguments: Files, further models and temperatures.
        config: Model and sampling settings.
        sampler: A loaded model, the only one; by default those of the settings, each loaded when it is needed.

    Returns:
        A summary: problems, candidates, the shares that compile and that differ, candidates per second.

    Raises:
        LoadError: A model or the problems are not there.
        RowError: A row breaks the format; found before a model is loaded.
        OutputError: The output cannot be written, or another one stands in the way.
    """
    models = [config.model, *arguments.models]
    if sampler is None:
        _require_models(models, config.engine)
    elif len(models) > 1:
        raise ConfigError("`models`: a loaded sampler is one model; leave `sampler` out to sample from several")
    if arguments.cluster and (config.engine == "openai" or sampler is not None):
        raise ConfigError("`cluster`: an endpoint or a loaded sampler needs none; leave it out")
    configs = [_draws_of(config, model, heat) for model in models for heat in arguments.temperatures or [config.temperature]]
    num_problems = sum(1 for _ in _groups(arguments))
    if not num_problems:
        raise LoadError(f"`problems`: `{arguments.problems}` has no problem; give a file with at least one")
    started, drawn = time.monotonic(), 0
    settings = _settings(arguments, config)
    usage: dict[str, Any] = {}
    with (
        ResumableWriter(arguments.output, settings, overwrite=arguments.overwrite) as writer,
        Journal(f"{arguments.output}.draws", overwrite=arguments.overwrite) as journal,
    ):
        if not writer.finished:
            loaded = _LoadedSampler(sampler)
            for number, draws_config in enumerate(configs):
                drawn += _draw_all(arguments, draws_config, journal, number * num_problems, num_problems, loaded)
            usage = loaded.usage
            for index, group in enumerate(islice(_groups(arguments), writer.rows_done, None), start=writer.rows_done):
                draws = [journal[number * num_problems + index] for number in range(len(configs))]
                writer.write([_add_candidates(group, configs, draws, arguments.deduplicate)])
            writer.finish()
        journal.close(remove=True)
    return {**_summary(arguments.output), **_speed(drawn, time.monotonic() - started), **usage, "output": arguments.output}


def _require_models(models: list[str], engine: str) -> None:
    names = [_shown_name(model) for model in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"`models`: candidates are told apart by their model's name, got {', '.join(names)}; rename a folder")
    if engine != "openai":
        for model in models:
            require_model(model)


def _draws_of(config: SamplingConfig, model: str, temperature: float) -> SamplingConfig:
    """The settings of one model at one temperature; greedy ones among several draw once."""
    is_one_of_several = temperature != config.temperature
    num_generations = 1 if temperature == 0 and is_one_of_several else config.num_generations
    return replace(config, model=model, temperature=temperature, num_generations=num_generations)


class _LoadedSampler:
    """The model that draws now, loaded when it is needed; the one before it is let go."""

    def __init__(self, sampler: Sampler | None) -> None:
        self._sampler, self._given, self._model = sampler, sampler is not None, ""
        self.usage: dict[str, Any] = {}

    def of(self, config: SamplingConfig) -> Sampler:
        if not self._given and (self._sampler is None or self._model != config.model):
            self._sampler = None
            self._sampler, self._model = make_sampler(config), config.model
        assert self._sampler is not None
        return self._sampler

    def count_usage(self, sampler: Sampler) -> None:
        """Tokens and costs, where the sampler counts them."""
        if hasattr(sampler, "usage"):
            self.usage = {**self.usage, f"usage of {self._model or 'the sampler'}": sampler.usage()}


def _settings(arguments: SampleArguments, config: SamplingConfig) -> dict[str, Any]:
    source = fingerprint(arguments.problems) if Path(arguments.problems).exists() else arguments.problems
    run = {name: value for name, value in asdict(arguments).items() if name not in _FILES_AND_MACHINES}
    draws = {name: value for name, value in asdict(config).items() if name not in _WITHOUT_EFFECT_ON_ROWS}
    return {"stage": "sample", "problems": source, **run, **draws}


def _groups(arguments: SampleArguments) -> Iterator[CandidateGroup]:
    return map(_earlier_candidates, iterate_problems(arguments.problems, arguments.where, arguments.limit))


def _earlier_candidates(problem: Problem) -> CandidateGroup:
    """A problem row that has candidates already keeps them; a new one starts with none."""
    columns = ("completions", "sources", "models")
    present = [name for name in columns if name in problem.extra]
    if present and len(present) < len(columns):
        missing = ", ".join(f"`{name}`" for name in columns if name not in present)
        raise RowError(f"problem {problem.problem_id}", None, f"a candidate group also needs {missing}")
    if present:
        return CandidateGroup.from_row(problem.to_row(), f"problem {problem.problem_id}")
    return CandidateGroup.from_problem(problem, completions=[], sources=[], models=[])


def _draw_all(
    arguments: SampleArguments,
    config: SamplingConfig,
    journal: Journal,
    first_place: int,
    num_problems: int,
    loaded: _LoadedSampler,
) -> int:
    """Draws what the journal lacks of one model at one temperature; returns the number of candidates."""
    done = sum(first_place + index in journal for index in range(num_problems))
    if done == num_problems:
        return 0
    batches = _batches_to_draw(arguments, config, journal, first_place)
    if arguments.cluster:
        all_pieces = _draw_on_cluster(arguments.cluster, config, batches)
    else:
        all_pieces = _draw_here(config, batches, journal, loaded)
    drawn, started = 0, time.monotonic()
    title = f"sample {_shown_name(config.model)} at {config.temperature:g}"
    with tqdm(total=num_problems, initial=done, desc=title, unit="problem") as bar:
        for pieces in all_pieces:
            journal.add(pieces)
            drawn += sum(map(len, pieces.values()))
            bar.update(len(pieces))
            bar.set_postfix_str(f"{drawn / (time.monotonic() - started):.1f} candidates/s")
    return drawn


def _batches_to_draw(
    arguments: SampleArguments, config: SamplingConfig, journal: Journal, first_place: int
) -> Iterator[dict[int, CandidateGroup]]:
    """The batches, by place in the journal, without those that are done."""
    for batch in _batches(_groups(arguments), config.batch_size):
        if any(first_place + index not in journal for index in batch):
            yield {first_place + index: group for index, group in batch.items()}


def _draw_here(
    config: SamplingConfig, batches: Iterator[dict[int, CandidateGroup]], journal: Journal, loaded: _LoadedSampler
) -> Iterator[dict[int, list[str]]]:
    sampler = loaded.of(config)
    try:
        for batch in batches:
            yield from draw(batch, config, sampler, journal)
    finally:
        loaded.count_usage(sampler)


def _draw_on_cluster(
    address: str, config: SamplingConfig, batches: Iterator[dict[int, CandidateGroup]]
) -> Iterator[dict[int, list[str]]]:
    """Draws the same batches, on the machines of a cluster; yields them as they are done."""
    items = ((min(batch), [[place, group.to_row()] for place, group in batch.items()]) for batch in batches)
    for _, pieces in map_on_cluster(address, partial(_BatchDrawer, config), items, whole_machines=True):
        yield dict(pieces)


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
    todo: dict[int, Any], config: SamplingConfig, sampler: Sampler, done: Container[int] = ()
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
    name = _shown_name(config.model)
    prompts = [render_prompt(problem, config.prompt_style) for problem in todo.values()]
    settings: dict[str, Any] = {
        "seeds": [candidate_seeds(config, problem.problem_id, name) for problem in todo.values()],
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "max_new_tokens": config.max_new_tokens,
        "stop_strings": config.stop_strings,
    }
    places = list(todo)
    if isinstance(sampler, StreamingSampler):
        for index, texts in sampler.stream(prompts, **settings):
            yield {places[index]: texts}
    else:
        yield dict(zip(places, sampler.sample(prompts, **settings), strict=True))


def _add_candidates(
    group: CandidateGroup, configs: list[SamplingConfig], draws: list[list[str]], deduplicate: bool
) -> CandidateGroup:
    candidates = list(zip(group.completions, group.sources, group.models, _earlier_raw(group), strict=True))
    for config, texts in zip(configs, draws, strict=True):
        name = _shown_name(config.model)
        candidates += [(extract_program(text, group), config.source, name, text) for text in texts]
    if configs[0].include_reference and group.reference_solution is not None and "reference" not in group.sources:
        candidates.append((group.reference_solution, "reference", "reference", None))
    if deduplicate:  # a teacher's program stays a teacher's, also where a student wrote the same
        teachers_first = sorted(candidates, key=lambda candidate: candidate[1] == "student")
        kept = {candidate[0]: candidate for candidate in reversed(teachers_first)}
        candidates = [candidate for candidate in candidates if kept[candidate[0]] is candidate]
    combined = CandidateGroup.from_problem(
        group,
        completions=[candidate[0] for candidate in candidates],
        sources=[candidate[1] for candidate in candidates],
        models=[candidate[2] for candidate in candidates],
    )
    combined.extra = {**group.extra, RAW_COLUMN: [candidate[3] for candidate in candidates]}
    return combined


def _earlier_raw(group: CandidateGroup) -> list[str | None]:
    raw: list[str | None] = group.extra.get(RAW_COLUMN) or [None] * len(group.completions)
    return raw


def _shown_name(model: str) -> str:
    return Path(model).name if Path(model).exists() else model


def _speed(drawn: int, seconds: float) -> dict[str, Any]:
    return {"sampled now": drawn, "candidates per second": round(drawn / seconds, 2)}


def _summary(output: str) -> dict[str, Any]:
    counts = dict.fromkeys(("problems", "candidates", "that compile", "that differ", "references"), 0)
    for group in stream_rows(output, CandidateGroup):
        entries = zip(group.completions, group.sources, strict=True)
        programs = [program for program, source in entries if source != "reference"]
        counts["problems"] += 1
        counts["candidates"] += len(programs)
        counts["that compile"] += sum(map(_compiles, programs))
        counts["that differ"] += len(set(programs))
        counts["references"] += len(group.completions) - len(programs)
    shares = {name: counts[name] / max(1, counts["candidates"]) for name in ("that compile", "that differ")}
    return {**counts, **shares}


def _compiles(program: str) -> bool:
    """Whether a program parses; only for the summary, the judge compiles in a contained process."""
    try:
        parse_program(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(program.strip())
