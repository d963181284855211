"""The `evaluate` stage: pass@k of a model on problems with tests."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError, JudgeError
from trl_rrtf.evaluation.config import EvaluateArguments
from trl_rrtf.evaluation.pass_at_k import estimate
from trl_rrtf.evaluation.report import require_plots, write_report
from trl_rrtf.evaluation.statistics import mean_with_interval
from trl_rrtf.groups import JudgedGroup, Outcome
from trl_rrtf.judging.config import JudgeArguments, JudgeConfig
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.row_files import stream_rows, write_json
from trl_rrtf.sampling import SampleArguments, Sampler, SamplingConfig, run_sample

_LIBRARIES = ("trl-rrtf", "trl", "transformers", "torch")


def run_evaluate(
    arguments: EvaluateArguments, sampling: SamplingConfig, judging: JudgeConfig, sampler: Sampler | None = None
) -> dict[str, Any]:
    """Samples, judges and counts; an interrupted evaluation goes on where it stopped.

    Args:
        arguments: Files and values of k.
        sampling: Model and sampling settings; `num_generations` is n.
        judging: Limits of the judge.
        sampler: A loaded model; by default that of `sampling`, loaded when it is needed.

    Returns:
        `pass@k` (mean and 95 % bootstrap interval over the problems), counts per outcome, where the result lies.

    Raises:
        ConfigError: A k is larger than `num_generations`.
        JudgeError: No candidate of a problem could be judged.
    """
    if max(arguments.k) > sampling.num_generations:
        raise ConfigError(f"`k`: {max(arguments.k)} is more than `num_generations` ({sampling.num_generations}); sample more")
    if arguments.report:
        require_plots()
    started = time.monotonic()
    temperatures = arguments.k_temperatures or [sampling.temperature] * len(arguments.k)
    judged = {heat: _judged_candidates(arguments, sampling, judging, sampler, heat) for heat in dict.fromkeys(temperatures)}
    counts = {heat: [_count(group) for group in stream_rows(path, JudgedGroup)] for heat, path in judged.items()}
    problems = _merge(counts, dict(zip(arguments.k, temperatures, strict=True)))
    outcomes = Counter(
        verdict.outcome.label
        for path in judged.values()
        for group in stream_rows(path, JudgedGroup)
        for verdict in group.verdicts
    )
    drawn = {"k": arguments.k, "k_temperatures": arguments.k_temperatures, **asdict(sampling)}
    result: dict[str, Any] = {
        "pass@k": {f"pass@{k}": mean_with_interval([estimate(entry, k) for entry in problems]) for k in arguments.k},
        "outcomes": {outcome.label: outcomes[outcome.label] for outcome in reversed(Outcome)},
        "problems": problems,
        "settings": {"problems": arguments.problems, "where": arguments.where, "limit": arguments.limit, **drawn},
        "judge": asdict(judging),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(arguments.output, result)
    files = {"output": arguments.output}
    if arguments.report:
        write_report(result, list(judged.values()), arguments.report)
        files["report"] = arguments.report
    return {"pass@k": result["pass@k"], **result["outcomes"], "problems": len(problems), **files}


def _judged_candidates(
    arguments: EvaluateArguments, sampling: SamplingConfig, judging: JudgeConfig, sampler: Sampler | None, temperature: float
) -> Path:
    """Draws at one temperature and judges; returns the judged groups."""
    name = f".t{temperature:g}" if len(set(arguments.k_temperatures)) > 1 else ""
    output = Path(arguments.output)
    candidates, judged = (output.with_suffix(f"{name}.{kind}.jsonl") for kind in ("candidates", "judged"))
    files = SampleArguments(arguments.problems, str(candidates), arguments.where, arguments.limit, arguments.overwrite)
    run_sample(files, replace(sampling, temperature=temperature), sampler)
    run_judge(JudgeArguments(str(candidates), str(judged), arguments.overwrite), judging)
    return judged


def _merge(counts: dict[float, list[dict[str, Any]]], temperature_of: dict[int, float]) -> list[dict[str, Any]]:
    """One entry per problem; with several temperatures its `n` and `c` are sums, and `at` has those of each k."""
    if len(counts) == 1:
        return next(iter(counts.values()))
    merged = []
    for entries in zip(*counts.values(), strict=True):
        by_temperature = dict(zip(counts, entries, strict=True))
        at = {str(k): {name: by_temperature[heat][name] for name in ("n", "c")} for k, heat in temperature_of.items()}
        sums = {name: sum(entry[name] for entry in entries) for name in ("n", "c")}
        merged.append({"problem_id": entries[0]["problem_id"], **sums, "at": at})
    return merged


def show_interval(value: dict[str, float]) -> str:
    """A mean with its interval for a table, such as `4.2% [0.0%, 8.3%]`."""
    return f"{value['mean']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"


def _count(group: JudgedGroup) -> dict[str, Any]:
    """Candidates (n) and passed candidates (c) of a problem; those that could not be judged are left out."""
    judged = [
        verdict
        for verdict, source in zip(group.verdicts, group.sources, strict=True)
        if verdict.outcome is not Outcome.INFRASTRUCTURE and source != "reference"
    ]
    if not judged:
        raise JudgeError(f"no candidate of problem {group.problem_id} could be judged; run again with `--overwrite true`")
    return {
        "problem_id": group.problem_id,
        "n": len(judged),
        "c": sum(verdict.outcome is Outcome.PASSED for verdict in judged),
    }
