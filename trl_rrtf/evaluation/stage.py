"""The `evaluate` stage: pass@k of a model on problems with tests."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError, JudgeError
from trl_rrtf.evaluation.config import EvaluateArguments
from trl_rrtf.evaluation.pass_at_k import pass_at_k
from trl_rrtf.groups import JudgedGroup, Outcome
from trl_rrtf.judging.config import JudgeArguments, JudgeConfig
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.row_files import read_rows, write_json
from trl_rrtf.sampling import SampleArguments, Sampler, SamplingConfig, run_sample

_BOOTSTRAP_DRAWS = 2000
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
    output = Path(arguments.output)
    candidates, judged = output.with_suffix(".candidates.jsonl"), output.with_suffix(".judged.jsonl")
    started = time.monotonic()
    run_sample(
        SampleArguments(arguments.problems, str(candidates), arguments.where, arguments.limit, arguments.overwrite),
        sampling,
        sampler,
    )
    run_judge(JudgeArguments(str(candidates), str(judged), arguments.overwrite), judging)
    groups = read_rows(judged, JudgedGroup)
    problems = [_count(group) for group in groups]
    outcomes = Counter(verdict.outcome.label for group in groups for verdict in group.verdicts)
    result: dict[str, Any] = {
        "pass@k": {f"pass@{k}": _mean_with_interval([_estimate(entry, k) for entry in problems]) for k in arguments.k},
        "outcomes": {outcome.label: outcomes[outcome.label] for outcome in reversed(Outcome)},
        "problems": problems,
        "settings": {"problems": arguments.problems, "where": arguments.where, "limit": arguments.limit, **asdict(sampling)},
        "judge": asdict(judging),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(output, result)
    return {"pass@k": result["pass@k"], **result["outcomes"], "problems": len(problems), "output": str(output)}


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


def _estimate(entry: dict[str, Any], k: int) -> float:
    """pass@k of a problem; one that lost candidates to the judge is estimated at the k that is left."""
    return pass_at_k(entry["n"], entry["c"], min(k, entry["n"]))


def _mean_with_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over the problems, with a 95 % percentile bootstrap interval (fixed seed)."""
    import numpy as np  # here, for a quick `--help`

    array = np.asarray(values)
    draws = np.random.default_rng(0).choice(array, size=(_BOOTSTRAP_DRAWS, len(array)))
    low, high = np.quantile(draws.mean(axis=1), [0.025, 0.975])
    return {"mean": float(array.mean()), "low": float(low), "high": float(high)}
