"""The `sample` stage: problems in, candidate groups out."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trl_rrtf.errors import RowError
from trl_rrtf.groups import CandidateGroup, Problem
from trl_rrtf.model_paths import require_model
from trl_rrtf.problems import load_problems, select_problems
from trl_rrtf.prompts import render_prompt
from trl_rrtf.python_source import parse_program
from trl_rrtf.row_files import ResumableWriter, fingerprint, read_rows
from trl_rrtf.sampling.config import SampleArguments, SamplingConfig
from trl_rrtf.sampling.extraction import extract_program
from trl_rrtf.sampling.sampler import Sampler, make_sampler

RAW_COLUMN = "raw_completions"
"""Column with what the models wrote, before extraction; null for references."""


def run_sample(arguments: SampleArguments, config: SamplingConfig, sampler: Sampler | None = None) -> dict[str, Any]:
    """Samples candidates for every problem; an interrupted run goes on with the batch where it stopped.

    Args:
        arguments: Files.
        config: Model and sampling settings.
        sampler: A loaded model; by default that of `config`, loaded when it is needed.

    Returns:
        A summary: problems, candidates, the shares that compile and that differ, candidates per second.

    Raises:
        LoadError: The model or the problems are not there.
        RowError: A row breaks the format; found before the model is loaded.
        OutputError: The output cannot be written, or another one stands in the way.
    """
    if sampler is None:
        require_model(config.model)
    problems = select_problems(load_problems(arguments.problems), arguments.where, arguments.limit)
    groups = [_earlier_candidates(problem) for problem in problems]
    selection = {"problems": _fingerprint(arguments.problems), "where": arguments.where, "limit": arguments.limit}
    settings = {"stage": "sample", **selection, **asdict(config)}
    started, sampled = time.monotonic(), 0
    with ResumableWriter(arguments.output, settings, rows_per_step=config.batch_size, overwrite=arguments.overwrite) as writer:
        if not writer.finished:
            with tqdm(total=len(groups), initial=writer.rows_done, desc=f"sample {config.source}", unit="problem") as bar:
                for start in range(writer.rows_done, len(groups), config.batch_size):
                    sampler = sampler or make_sampler(config)
                    batch = groups[start : start + config.batch_size]
                    writer.write(_sample_batch(batch, config, sampler, seed=config.seed + start))
                    sampled += len(batch) * config.num_generations
                    bar.update(len(batch))
                    bar.set_postfix_str(f"{sampled / (time.monotonic() - started):.1f} candidates/s")
            writer.finish()
    return _summary(arguments.output, sampled, time.monotonic() - started)


def _fingerprint(source: str) -> str:
    return fingerprint(source) if Path(source).exists() else source


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


def _sample_batch(batch: list[CandidateGroup], config: SamplingConfig, sampler: Sampler, seed: int) -> list[CandidateGroup]:
    """Adds candidates to each group. The seed depends on the place in the file alone, so a resumed run repeats it."""
    texts = sampler.sample(
        [render_prompt(group, config.prompt_style) for group in batch],
        num_generations=config.num_generations,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        max_new_tokens=config.max_new_tokens,
        stop_strings=config.stop_strings,
        seed=seed,
    )
    return [_add_candidates(group, raw, config) for group, raw in zip(batch, texts, strict=True)]


def _add_candidates(group: CandidateGroup, raw: list[str], config: SamplingConfig) -> CandidateGroup:
    programs = [extract_program(text, group) for text in raw]
    sources = [config.source] * len(raw)
    models = [Path(config.model).name if Path(config.model).exists() else config.model] * len(raw)
    raw_column: list[str | None] = [*(group.extra.get(RAW_COLUMN) or [None] * len(group.completions)), *raw]
    if config.include_reference and group.reference_solution is not None and "reference" not in group.sources:
        programs, raw_column = [*programs, group.reference_solution], [*raw_column, None]
        sources, models = [*sources, "reference"], [*models, "reference"]
    combined = CandidateGroup.from_problem(
        group,
        completions=[*group.completions, *programs],
        sources=[*group.sources, *sources],
        models=[*group.models, *models],
    )
    combined.extra = {**group.extra, RAW_COLUMN: raw_column}
    return combined


def _summary(output: str, sampled: int, seconds: float) -> dict[str, Any]:
    groups = read_rows(output, CandidateGroup)
    programs = [
        program
        for group in groups
        for program, source in zip(group.completions, group.sources, strict=True)
        if source != "reference"
    ]
    return {
        "problems": len(groups),
        "candidates": len(programs),
        "that compile": sum(map(_compiles, programs)) / max(1, len(programs)),
        "that differ": sum(
            len({p for p, source in zip(group.completions, group.sources, strict=True) if source != "reference"})
            for group in groups
        )
        / max(1, len(programs)),
        "references": sum(group.sources.count("reference") for group in groups),
        "sampled now": sampled,
        "candidates per second": round(sampled / seconds, 2),
        "output": output,
    }


def _compiles(program: str) -> bool:
    """Whether a program parses; only for the summary, the judge compiles in a contained process."""
    try:
        parse_program(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(program.strip())
