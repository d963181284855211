"""The `compare` command: two evaluations of the same problems, side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.evaluation.config import CompareArguments
from trl_rrtf.evaluation.result import Evaluation
from trl_rrtf.evaluation.statistics import Interval, mcnemar, paired_difference
from trl_rrtf.options import check_paths
from trl_rrtf.rows.files import write_json
from trl_rrtf.rows.summary import Summary

_COMPARED_SETTINGS = (
    "num_generations",
    "temperature",
    "top_p",
    "top_k",
    "max_new_tokens",
    "prompt_style",
    "stop_strings",
    "k_temperatures",
)
"""Sampling settings that two models must have in common for a fair comparison."""

_COMPARED_LIMITS = ("timeout", "memory_mb")
"""Limits of the judge, likewise."""


@dataclass(frozen=True)
class Difference:
    """pass@k of two models.

    Attributes:
        first: That of the first.
        second: That of the second.
        difference: Second minus first, paired by problem.
    """

    first: Interval
    second: Interval
    difference: Interval


@dataclass(kw_only=True)
class Comparison(Summary):
    """Two evaluations side by side.

    Attributes:
        first: File of the first.
        second: File of the second.
        models: Their models.
        pass_at_k: k -> both means and their difference, for each k that both measured.
        p_value: Of McNemar's test; a problem is solved if one of its candidates passes.
        solved_by: `both`, `first alone`, `second alone`, `neither` -> problems.
        different_settings: Setting -> both values, where they differ.
        output: File of the comparison, or None.
    """

    first: str
    second: str
    models: tuple[str, str]
    pass_at_k: dict[int, Difference]
    p_value: float
    solved_by: dict[str, list[str]]
    different_settings: dict[str, tuple[Any, Any]]
    output: str | None

    def table(self) -> dict[str, Any]:
        """What to show: the problems that one model alone solves are listed."""
        shown: dict[str, Any] = {"first": self.models[0], "second": self.models[1]}
        for k, value in self.pass_at_k.items():
            shown |= {f"pass@{k}: {part}": getattr(value, part) for part in ("first", "second", "difference")}
        shown["p (McNemar)"] = self.p_value
        for name, ids in self.solved_by.items():
            listed = "" if name in ("both", "neither") or not ids else ": " + ", ".join(ids)
            shown[f"solved by {name}"] = f"{len(ids)}{listed}"
        if self.different_settings:
            shown["not a fair comparison"] = "; ".join(
                f"{name}: {a} and {b}" for name, (a, b) in self.different_settings.items()
            )
        return shown

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "first": self.first,
            "second": self.second,
            "output": self.output,
            "models": list(self.models),
            "pass@k": {f"pass@{k}": asdict(value) for k, value in self.pass_at_k.items()},
            "p (McNemar)": self.p_value,
            "solved by": self.solved_by,
            "settings that differ": {name: list(values) for name, values in self.different_settings.items()},
        }


def run_compare(arguments: CompareArguments) -> Comparison:
    """Compares two evaluations problem by problem.

    Returns:
        The comparison, also written to `output`.

    Raises:
        LoadError: A result is not there or is none.
        ConfigError: The two are of other problems, or have no k in common.
    """
    check_paths(arguments)
    first, second = Evaluation.load(arguments.first, "first"), Evaluation.load(arguments.second, "second")
    ids = [problem.problem_id for problem in first.problems]
    of_second = {problem.problem_id: problem for problem in second.problems}
    if sorted(ids) != sorted(problem.problem_id for problem in second.problems):
        alone = sorted(set(ids) ^ set(of_second)) or ["one that stands there twice"]
        raise ConfigError(
            f"`second`: the two results are of other problems ({len(alone)} are in one of them alone, such as {alone[0]}); "
            "evaluate both models on the same ones"
        )
    pairs = [(problem, of_second[problem.problem_id]) for problem in first.problems]
    common = [k for k in first.pass_at_k if k in second.pass_at_k]
    if not common:
        raise ConfigError("`second`: the two results share no k; evaluate both with the same `--k`")
    solved_by = {
        name: [a.problem_id for a, b in pairs if (a.is_solved, b.is_solved) == who]
        for name, who in {
            "both": (True, True),
            "first alone": (True, False),
            "second alone": (False, True),
            "neither": (False, False),
        }.items()
    }
    comparison = Comparison(
        first=arguments.first,
        second=arguments.second,
        models=(first.settings["model"], second.settings["model"]),
        pass_at_k={
            k: Difference(
                first.pass_at_k[k],
                second.pass_at_k[k],
                paired_difference([a.pass_at(k) for a, _ in pairs], [b.pass_at(k) for _, b in pairs]),
            )
            for k in common
        },
        p_value=mcnemar(len(solved_by["first alone"]), len(solved_by["second alone"])),
        solved_by=solved_by,
        different_settings=_different_settings(first, second),
        output=arguments.output,
    )
    if arguments.output:
        write_json(arguments.output, comparison.to_json())
    return comparison


def _different_settings(first: Evaluation, second: Evaluation) -> dict[str, tuple[Any, Any]]:
    pairs: dict[str, tuple[Any, Any]] = {
        name: (first.settings.get(name), second.settings.get(name)) for name in _COMPARED_SETTINGS
    }
    pairs |= {f"judge: {name}": (first.judge.get(name), second.judge.get(name)) for name in _COMPARED_LIMITS}
    choices = [_choice(evaluation) for evaluation in (first, second)]
    if any(choices):  # a choice does not know how its candidates were drawn
        pairs = {name: values for name, values in pairs.items() if None not in values} | {
            "best of n": (choices[0] or "one sample", choices[1] or "one sample")
        }
    contents = [evaluation.fingerprints.get("input_fingerprint") for evaluation in (first, second)]
    if None not in contents:  # results of earlier versions have none
        pairs["problems, by their content"] = (contents[0], contents[1])
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


def _choice(evaluation: Evaluation) -> str:
    """How `trl-rrtf select` chose what was evaluated; empty where candidates count as they were drawn."""
    choice: dict[str, Any] = evaluation.settings.get("select", {})
    return f"chosen by {', '.join(choice['by'])}" if evaluation.best_of_n and choice else ""
