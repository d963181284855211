"""The `compare` command: two evaluations of the same problems, side by side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError, LoadError
from trl_rrtf.evaluation.pass_at_k import estimate
from trl_rrtf.evaluation.statistics import mcnemar, paired_difference
from trl_rrtf.row_files import write_json

_DECISIVE = ("num_generations", "temperature", "top_p", "top_k", "max_new_tokens", "prompt_style", "stop_strings")
"""Sampling settings that two models must share for a fair comparison."""


@dataclass
class CompareArguments:
    """Two results of `trl-rrtf evaluate`.

    Attributes:
        first: The one that is compared with, `.json`.
        second: The other one, `.json`.
        output: Where the comparison goes, `.json`, or None.
    """

    first: str = field(metadata={"help": "A result of `trl-rrtf evaluate` (.json), such as that of the base model."})
    second: str = field(metadata={"help": "Another one, of the same problems."})
    output: str | None = field(default=None, metadata={"help": "Where the comparison goes (.json)."})


def run_compare(arguments: CompareArguments) -> dict[str, Any]:
    """Compares two evaluations problem by problem.

    Returns:
        For each k that both measured, both means and the difference (second less first) with its 95 % bootstrap interval over
        the problems; the p-value of McNemar's test, for which a problem is solved if one of its candidates passes; the
        problems that both, one or none solves; and the settings that differ.

    Raises:
        LoadError: A result is not there or is none.
        ConfigError: The two are of other problems, or share no k.
    """
    results = [_load(name, getattr(arguments, name)) for name in ("first", "second")]
    ids = [[entry["problem_id"] for entry in result["problems"]] for result in results]
    if sorted(ids[0]) != sorted(ids[1]):
        alone = sorted(set(ids[0]) ^ set(ids[1]))
        raise ConfigError(
            f"`second`: the two results are of other problems ({len(alone)} are in one of them alone, such as {alone[0]}); "
            "evaluate both models on the same ones"
        )
    first, second = ({entry["problem_id"]: entry for entry in result["problems"]} for result in results)
    shared = [name for name in results[0]["pass@k"] if name in results[1]["pass@k"]]
    if not shared:
        raise ConfigError("`second`: the two results share no k; evaluate both with the same `--k`")
    solved = {
        "both": [key for key in ids[0] if _solved(first[key]) and _solved(second[key])],
        "first alone": [key for key in ids[0] if _solved(first[key]) and not _solved(second[key])],
        "second alone": [key for key in ids[0] if not _solved(first[key]) and _solved(second[key])],
        "neither": [key for key in ids[0] if not _solved(first[key]) and not _solved(second[key])],
    }
    comparison = {
        **asdict(arguments),
        "models": [result["settings"]["model"] for result in results],
        "pass@k": {name: _difference(name, results, first, second, ids[0]) for name in shared},
        "p (McNemar)": mcnemar(len(solved["first alone"]), len(solved["second alone"])),
        "solved by": solved,
        "settings that differ": _different_settings(*results),
    }
    if arguments.output:
        write_json(arguments.output, comparison)
    return _summary(comparison)


def _load(name: str, path: str) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadError(f"`{name}`: cannot read `{path}`: {error.strerror}; give a result of `trl-rrtf evaluate`") from error
    except json.JSONDecodeError as error:
        raise LoadError(f"`{name}`: `{path}` is not JSON; give the .json of `trl-rrtf evaluate`") from error
    if not isinstance(result, dict) or not {"pass@k", "problems", "settings"} <= result.keys():
        raise LoadError(f"`{name}`: `{path}` is no result of `trl-rrtf evaluate`: it lacks pass@k, problems or settings")
    return result


def _solved(entry: dict[str, Any]) -> bool:
    return bool(entry["c"])


def _difference(
    name: str, results: list[dict[str, Any]], first: dict[str, Any], second: dict[str, Any], ids: list[str]
) -> dict[str, Any]:
    k = int(name.removeprefix("pass@"))
    values = [[estimate(entries[key], k) for key in ids] for entries in (first, second)]
    return {
        "first": results[0]["pass@k"][name],
        "second": results[1]["pass@k"][name],
        "difference": paired_difference(*values),
    }


def _different_settings(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[Any]]:
    pairs = {name: [first["settings"].get(name), second["settings"].get(name)] for name in (*_DECISIVE, "k_temperatures")}
    pairs |= {f"judge: {name}": [first["judge"].get(name), second["judge"].get(name)] for name in ("timeout", "memory_mb")}
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


def _summary(comparison: dict[str, Any]) -> dict[str, Any]:
    solved, differences = comparison["solved by"], comparison["settings that differ"]
    shown: dict[str, Any] = {"first": comparison["models"][0], "second": comparison["models"][1]}
    for name, values in comparison["pass@k"].items():
        shown |= {f"{name}: {part}": values[part] for part in ("first", "second", "difference")}
    shown["p (McNemar)"] = comparison["p (McNemar)"]
    for name, ids in solved.items():
        listed = "" if name in ("both", "neither") or not ids else ": " + ", ".join(ids)
        shown[f"solved by {name}"] = f"{len(ids)}{listed}"
    if differences:
        shown["not a fair comparison"] = "; ".join(f"{name}: {a} and {b}" for name, (a, b) in differences.items())
    return shown
