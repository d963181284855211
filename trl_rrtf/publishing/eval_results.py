"""Evaluations as the Hub reads them: `.eval_results/*.yaml`, the `model-index` of a card, and a table for people.

Sources: https://huggingface.co/docs/hub/eval-results and the card's specification in `modelcard.md` of `huggingface/hub-docs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult

from trl_rrtf.evaluation.result import Evaluation
from trl_rrtf.models.hub import hub_id, hub_link, told_name
from trl_rrtf.publishing.folder import without_paths

_SAMPLING = ("num_generations", "temperature", "top_p", "top_k", "max_new_tokens", "prompt_style", "seed")
"""Settings that a reader needs to get the same figure."""

_JUDGING = ("timeout", "memory_mb")

DEFAULT_TASK = "default"
"""Task of a data set that does not say (in an `eval.yaml`) what its tasks are called."""


@dataclass(frozen=True)
class Benchmark:
    """A published set of problems, whole.

    Attributes:
        key: Its name in file names.
        name: What it is called.
        dataset_id: Where it lies on the Hub.
        config: Configuration there.
        split: Split there.
        problems: How many there are.
    """

    key: str
    name: str
    dataset_id: str
    config: str
    split: str
    problems: int


BENCHMARKS = (
    Benchmark("humaneval", "HumanEval", "openai/openai_humaneval", "openai_humaneval", "test", 164),
    Benchmark("mbpp", "MBPP", "google-research-datasets/mbpp", "full", "test", 500),
    Benchmark("mbpp_sanitized", "MBPP, sanitized", "google-research-datasets/mbpp", "sanitized", "test", 257),
)
"""What goes into `.eval_results/`, whose figures stand in one list with everybody's: only the whole set counts."""

_OLDER_IDS = {"openai_humaneval": "openai/openai_humaneval", "mbpp": "google-research-datasets/mbpp"}


@dataclass(frozen=True)
class ProblemSet:
    """What a model was evaluated on.

    Attributes:
        name: What it is called: a benchmark's name, a Hub id, or a file's name.
        dataset_id: Where it lies on the Hub; None for a file.
        config: Configuration there, or None for its default.
        split: Split there, or None.
        part: Which of its problems, in words; empty for all.
        benchmark: The benchmark, where the whole of it was evaluated.
    """

    name: str
    dataset_id: str | None
    config: str | None
    split: str | None
    part: str
    benchmark: Benchmark | None


def problem_set(evaluation: Evaluation) -> ProblemSet:
    """Finds what was evaluated, by the name under which the problems were loaded; a file is a file, whatever it holds."""
    settings = evaluation.settings
    given = str(settings.get("problems", "problems without a name"))
    dataset_id, config, split = _on_hub(given, evaluation)
    known = [entry for entry in BENCHMARKS if entry.dataset_id == dataset_id and entry.split == split]
    known = [entry for entry in known if config in (None, entry.config)][:1]
    part = _part(settings, len(evaluation.problems))
    if not known:
        return ProblemSet(told_name(given), dataset_id, config, split, part, None)
    (benchmark,) = known
    is_whole = not part and len(evaluation.problems) == benchmark.problems
    part = "" if is_whole else part or f"{len(evaluation.problems)} of {benchmark.problems} problems"
    return ProblemSet(benchmark.name, dataset_id, benchmark.config, split, part, benchmark if is_whole else None)


def _on_hub(given: str, evaluation: Evaluation) -> tuple[str | None, str | None, str | None]:
    """Data set, configuration and split; nothing for what was a file where it was evaluated (its fingerprint is a hash)."""
    if given == "humaneval":
        return BENCHMARKS[0].dataset_id, BENCHMARKS[0].config, BENCHMARKS[0].split
    if evaluation.fingerprints.get("input_fingerprint") != given:
        return None, None, None
    name, *parts = given.split(":")
    if given.startswith("hf://"):
        return hub_id(given), None, None
    *config, split = parts or ["train"]
    return _OLDER_IDS.get(name) or hub_id(name), config[0] if config else None, split


def _part(settings: Mapping[str, Any], count: int) -> str:
    where = f"those with {settings['where']}" if settings.get("where") else ""
    limit = ("the first one" if count == 1 else f"the first {count}") if settings.get("limit") else ""
    return ", ".join(filter(None, [where, limit]))


def eval_results(evaluation: Evaluation) -> list[EvalResult]:
    """Entries for the `model-index` of a card, one for each k; none for problems of a file, since it wants a Hub id."""
    problems = problem_set(evaluation)
    if problems.dataset_id is None:
        return []
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=problems.dataset_id,
            dataset_name=f"{problems.name} ({problems.part})" if problems.part else problems.name,
            dataset_config=problems.config,
            dataset_split=problems.split,
            metric_type=f"pass@{k}",
            metric_name=f"pass@{k}",
            metric_value=round(interval.mean, 4),
            metric_args={
                "problems": len(evaluation.problems),
                "interval_95": [round(interval.low, 4), round(interval.high, 4)],
                **_circumstances(evaluation, k),
                **({"isolation": evaluation.isolation} if evaluation.isolation else {}),
            },
        )
        for k, interval in evaluation.pass_at_k.items()
    ]


def eval_results_entry(evaluation: Evaluation, task_id: str, source: str, source_name: str) -> dict[str, Any] | None:
    """The entry for `.eval_results/`, of pass@1 in percent; None where that is not what the format is for.

    Args:
        evaluation: The result.
        task_id: The benchmark's task, as its data set names it.
        source: Address of the whole result.
        source_name: What that is called.
    """
    benchmark, interval = problem_set(evaluation).benchmark, evaluation.pass_at_k.get(1)
    if benchmark is None or interval is None:
        return None
    notes = [
        f"pass@1 in percent, 95% interval {100 * interval.low:.1f} to {100 * interval.high:.1f}",
        _in_words(_circumstances(evaluation, 1)),
        f"isolation of the programs: {evaluation.isolation}" if evaluation.isolation else "",
    ]
    return {
        "dataset": {"id": benchmark.dataset_id, "task_id": task_id},
        "value": round(100 * interval.mean, 2),
        **({"date": evaluation.date} if evaluation.date else {}),
        "source": {"url": source, "name": source_name},
        "notes": "; ".join(filter(None, notes)),
    }


def eval_results_yaml(entries: list[dict[str, Any]]) -> str:
    """A file of `.eval_results/`; huggingface_hub before 1.0 has no function for it."""
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)


def _circumstances(evaluation: Evaluation, k: int | None = None) -> dict[str, Any]:
    """How the candidates of one k, or of all, were drawn and judged."""
    settings = dict(evaluation.settings)
    temperatures = settings.get("k_temperatures")
    if temperatures:
        settings["temperature"] = temperatures if k is None else temperatures[list(evaluation.pass_at_k).index(k)]
    chosen = {name: settings.get(name) for name in _SAMPLING} | {name: evaluation.judge.get(name) for name in _JUDGING}
    return {name: value for name, value in chosen.items() if value is not None}


def _in_words(circumstances: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in circumstances.items())


def evaluations_table(evaluations: Mapping[str, Evaluation]) -> str:
    """The section of a card that shows evaluations.

    Args:
        evaluations: File in the repository -> result.
    """
    columns = ("problems", "how many", "measure", "mean [95 % interval]", "date", "result")
    lines = ["## Evaluations", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for file, evaluation in evaluations.items():
        problems = problem_set(evaluation)
        name = f"`{problems.name}` (a local file)"
        if problems.dataset_id:
            name = hub_link(problems.dataset_id, "dataset", text=problems.name)
        which = f"{len(evaluation.problems)}" + (f" ({problems.part})" if problems.part else "")
        date = evaluation.date.partition("T")[0] or "not recorded"
        lines += [
            f"| {name} | {which} | pass@{k} | {interval} | {date} | [{Path(file).name}]({file}) |".replace("\n", " ")
            for k, interval in evaluation.pass_at_k.items()
        ]
    by_line: dict[str, list[str]] = {}
    for file, evaluation in evaluations.items():
        by_line.setdefault(_told_circumstances(evaluation), []).append(f"`{Path(file).stem}`")
    return "\n".join([*lines, "", *(f"{', '.join(files)}: {line}\n" for line, files in by_line.items())])


def _told_circumstances(evaluation: Evaluation) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items()) or "not recorded"
    isolation = evaluation.isolation or "not recorded"
    return f"{_in_words(_circumstances(evaluation))}. Isolation of the programs: {isolation}. Versions: {versions}."


def portable(evaluation: Evaluation, repo_id: str) -> dict[str, Any]:
    """The result as it may leave this machine: the model by its repository, problems of a file by the file's name.

    Args:
        evaluation: The result.
        repo_id: The model's repository.
    """
    values = evaluation.to_json()
    told = {name: told_name(str(values["settings"][name])) for name in ("problems", "input") if name in values["settings"]}
    return {**values, "settings": without_paths({**values["settings"], **told, "model": repo_id})}
