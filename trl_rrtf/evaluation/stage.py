"""The `evaluate` stage: pass@k of a model on problems with tests."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError, JudgeError, OutputError
from trl_rrtf.evaluation.config import EvaluateArguments
from trl_rrtf.evaluation.page import require_plots, write_page
from trl_rrtf.evaluation.result import Count, Evaluation, ProblemResult, library_versions
from trl_rrtf.evaluation.statistics import Interval, mean_with_interval
from trl_rrtf.judging.config import JudgeArguments, JudgeConfig
from trl_rrtf.judging.preparation import check_tests
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.models.paths import model_fingerprint
from trl_rrtf.options import check_paths, settings_of
from trl_rrtf.problems import check_problems, placed_problems
from trl_rrtf.rows.files import fingerprint, stream_rows, write_json
from trl_rrtf.rows.records import JudgedGroup, Outcome, Problem
from trl_rrtf.rows.resumable import output_lock, require_same_settings
from trl_rrtf.rows.summary import Summary
from trl_rrtf.sampling import SampleArguments, Sampler, SamplingConfig, run_sample
from trl_rrtf.sampling.engines import ENGINES


@dataclass(kw_only=True)
class EvaluateSummary(Summary):
    """What `evaluate` measured.

    Attributes:
        pass_at_k: k -> mean over the problems, with its interval.
        outcomes: Outcome -> candidates, the best first.
        problems: Number of problems.
        output: File of the result.
        page: File of the page, or None.
    """

    pass_at_k: dict[int, Interval]
    outcomes: dict[str, int]
    problems: int
    output: str
    page: str | None = None

    def table(self) -> dict[str, Any]:
        """What to show."""
        measures = {f"pass@{k}": interval for k, interval in self.pass_at_k.items()}
        files = {"output": self.output} | ({"page": self.page} if self.page else {})
        return {**measures, **self.outcomes, "problems": self.problems, **files}


def run_evaluate(
    arguments: EvaluateArguments, sampling: SamplingConfig, judging: JudgeConfig, sampler: Sampler | None = None
) -> EvaluateSummary:
    """Samples, judges and counts; an interrupted evaluation goes on where it stopped, a finished one is read.

    Args:
        arguments: Files and values of k.
        sampling: Model and sampling settings; `num_generations` is n.
        judging: Limits of the judge.
        sampler: A loaded model; by default that of `sampling`, loaded when it is needed.

    Returns:
        pass@k (mean and 95 % bootstrap interval over the problems), candidates per outcome, where the result lies.

    Raises:
        ConfigError: A k is larger than `num_generations`, an output is an input, or the tests of a problem cannot be run.
        OutputError: The output holds something else, or another process writes it.
        JudgeError: No candidate of a problem could be judged.
    """
    check_evaluation(arguments, sampling)
    check_paths(arguments, sampling)
    if arguments.page:
        require_plots()
    with output_lock(arguments.output):
        settings, limits = _settings(arguments, sampling), settings_of(judging)
        fingerprints = _fingerprints(arguments, sampling)
        evaluation = _finished(arguments, {**settings, **fingerprints, **limits})
        if evaluation is None:
            check_problems_to_evaluate(arguments.input, arguments.where, arguments.limit, arguments.skip_unusable)
            Path(arguments.output).unlink(missing_ok=True)
            evaluation = _evaluate(arguments, sampling, judging, sampler, settings, fingerprints)
            write_json(arguments.output, evaluation.to_json())
        if arguments.page:
            write_page(
                evaluation, [_judged_file(arguments, heat) for heat in _temperatures(arguments, sampling)], arguments.page
            )
    return EvaluateSummary(
        pass_at_k=evaluation.pass_at_k,
        outcomes=evaluation.outcomes,
        problems=len(evaluation.problems),
        output=arguments.output,
        page=arguments.page,
    )


def check_evaluation(arguments: EvaluateArguments, sampling: SamplingConfig) -> None:
    """Refuses values of k for which there will not be enough candidates.

    Raises:
        ConfigError: A k is larger than `num_generations`.
    """
    if max(arguments.k) > sampling.num_generations:
        raise ConfigError(f"`k`: {max(arguments.k)} is more than `num_generations` ({sampling.num_generations}); sample more")
    for k, heat in zip(arguments.k, arguments.k_temperatures, strict=False):
        if heat == 0 and k > 1:
            raise ConfigError(
                f"`k_temperatures`: greedy sampling (0) gives one candidate, and `k` is {k}; raise the temperature"
            )


def check_problems_to_evaluate(input: str, where: str | None, limit: int | None, skip_unusable: bool | None = None) -> None:
    """Checks problems and their tests before any expensive work.

    Args:
        input: Problems with tests.
        where: Which of them.
        limit: Only the first `limit` of them, or None for all.
        skip_unusable: Whether rows that are no problems are passed over, as in [`load_problems`][trl_rrtf.load_problems].

    Raises:
        LoadError: They are not there.
        RowError: A row breaks its format, or two have one id.
        ConfigError: Their tests cannot be run, or they have candidates already.
    """
    check_problems(input, where, limit, skip_unusable=skip_unusable)
    check_tests(map(_without_candidates, placed_problems(input, where, limit, skip_unusable=skip_unusable)))


def _without_candidates(placed: tuple[str, Problem]) -> tuple[str, Problem]:
    _, problem = placed
    if "completions" in problem.extra:
        raise ConfigError(
            f"`input`: problem {problem.problem_id} has candidates of an earlier run, which would count in pass@k; give the "
            "problems alone"
        )
    return placed


def _settings(arguments: EvaluateArguments, sampling: SamplingConfig) -> dict[str, Any]:
    return {"problems": arguments.input, **settings_of(arguments), **settings_of(sampling)}


def _fingerprints(arguments: EvaluateArguments, sampling: SamplingConfig) -> dict[str, str]:
    is_remote = ENGINES[sampling.engine].is_remote
    return {
        "input_fingerprint": fingerprint(arguments.input),
        "model_fingerprint": sampling.model if is_remote else model_fingerprint(sampling.model),
    }


def _finished(arguments: EvaluateArguments, settings: dict[str, Any]) -> Evaluation | None:
    """The result of an earlier run of the same command, if there is one."""
    output = Path(arguments.output)
    if not output.exists():
        return None
    try:
        evaluation = Evaluation.load(output, "output")
    except OSError as error:
        raise OutputError(
            f"`output`: `{output}` is there already and is no result of `trl-rrtf evaluate`; choose another name, or "
            "remove it yourself"
        ) from error
    if arguments.overwrite:
        return None
    earlier = {**evaluation.settings, **evaluation.fingerprints, **evaluation.judge}
    paths = ("problems", "input", "model")  # the same content may be given by another one
    wanted = {name: value for name, value in json.loads(json.dumps(settings)).items() if name not in paths}
    require_same_settings(output, {name: earlier.get(name) for name in wanted}, wanted)
    return evaluation


def _evaluate(
    arguments: EvaluateArguments,
    sampling: SamplingConfig,
    judging: JudgeConfig,
    sampler: Sampler | None,
    settings: dict[str, Any],
    fingerprints: dict[str, str],
) -> Evaluation:
    started = time.monotonic()
    temperatures = _temperatures(arguments, sampling)
    judged, isolations = dict[float, Path](), list[str]()
    for heat in dict.fromkeys(temperatures):
        judged[heat], isolation = _judged_candidates(arguments, sampling, judging, sampler, heat)
        isolations += [isolation] if isolation else []
    counts = {heat: dict(map(_count, stream_rows(path, JudgedGroup))) for heat, path in judged.items()}
    problems = _merge(counts, dict(zip(arguments.k, temperatures, strict=True)))
    outcomes = Counter(verdict.outcome for path in judged.values() for verdict in _verdicts(path))
    return Evaluation(
        pass_at_k={k: mean_with_interval([problem.pass_at(k) for problem in problems]) for k in arguments.k},
        outcomes={outcome.label: outcomes[outcome] for outcome in reversed(Outcome)},
        problems=problems,
        settings=settings,
        judge=asdict(judging),
        fingerprints=fingerprints,
        isolation="; or ".join(dict.fromkeys(isolations)),  # several where parts were judged on different machines
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=library_versions(),
        seconds=round(time.monotonic() - started, 1),
    )


def _verdicts(path: Path) -> Iterator[Any]:
    for group in stream_rows(path, JudgedGroup):
        yield from group.verdicts


def _temperatures(arguments: EvaluateArguments, sampling: SamplingConfig) -> list[float]:
    """The temperature of each k."""
    return arguments.k_temperatures or [sampling.temperature] * len(arguments.k)


def _file_beside(arguments: EvaluateArguments, temperature: float, kind: str) -> Path:
    name = f".t{temperature:g}" if len(set(arguments.k_temperatures)) > 1 else ""
    return Path(arguments.output).with_suffix(f"{name}.{kind}.jsonl")


def _judged_file(arguments: EvaluateArguments, temperature: float) -> Path:
    return _file_beside(arguments, temperature, "judged")


def _judged_candidates(
    arguments: EvaluateArguments, sampling: SamplingConfig, judging: JudgeConfig, sampler: Sampler | None, temperature: float
) -> tuple[Path, str | None]:
    """Draws at one temperature and judges; returns the file of the judged groups, and what held the programs."""
    candidates, judged = _file_beside(arguments, temperature, "candidates"), _judged_file(arguments, temperature)
    selection = {name: getattr(arguments, name) for name in ("where", "limit", "skip_unusable", "overwrite")}
    files = SampleArguments(arguments.input, str(candidates), **selection)
    is_one_of_several = temperature != sampling.temperature
    num_generations = 1 if temperature == 0 and is_one_of_several else sampling.num_generations
    run_sample(files, replace(sampling, temperature=temperature, num_generations=num_generations), sampler)
    summary = run_judge(JudgeArguments(str(candidates), str(judged), arguments.overwrite), judging)
    return judged, summary.isolation


def _merge(counts: dict[float, dict[str, Count]], temperature_of: dict[int, float]) -> list[ProblemResult]:
    """A result per problem; with several temperatures its count is their sum, and `at` has those of each k."""
    first = next(iter(counts.values()))
    if len(counts) == 1:
        return [ProblemResult(problem_id, count) for problem_id, count in first.items()]
    merged = []
    for problem_id in first:
        of_problem = {heat: by_problem[problem_id] for heat, by_problem in counts.items()}
        total = Count(sum(count.n for count in of_problem.values()), sum(count.c for count in of_problem.values()))
        merged.append(ProblemResult(problem_id, total, {k: of_problem[heat] for k, heat in temperature_of.items()}))
    return merged


def _count(group: JudgedGroup) -> tuple[str, Count]:
    """Candidates and passed candidates of a problem; references, and what could not be judged, are left out."""
    outcomes = [
        candidate.verdict.outcome for candidate in group.candidates if candidate.verdict and candidate.source != "reference"
    ]
    judged = [outcome for outcome in outcomes if outcome is not Outcome.INFRASTRUCTURE]
    if not judged:
        raise JudgeError(f"no candidate of problem {group.problem_id} could be judged; run again with `--overwrite true`")
    return group.problem_id, Count(len(judged), judged.count(Outcome.PASSED))
