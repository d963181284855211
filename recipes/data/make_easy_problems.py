"""Turns `easy_problems.py` into `easy_problems.jsonl` and checks them.

Run it after a change: `python recipes/data/make_easy_problems.py`. Every fourth problem of a topic is held out.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from easy_problems import PROBLEMS

OUTPUT = Path(__file__).with_name("easy_problems.jsonl")


def main() -> None:
    """Writes the file."""
    topics: Counter[str] = Counter()
    rows = []
    for topic, function, inputs in PROBLEMS:
        topics[topic] += 1
        split = "heldout" if topics[topic] % 4 == 0 else "train"
        rows.append(make_row(topic, split, function, inputs))
    OUTPUT.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} problems: {dict(Counter(row['split'] for row in rows))}, {dict(topics)}")


def make_row(topic: str, split: str, function: Any, inputs: tuple[tuple[Any, ...], ...]) -> dict[str, Any]:
    """One problem row, see `trl_rrtf.rows.records.Problem`."""
    name = function.__name__
    results = [function(*arguments) for arguments in inputs]
    assert len(inputs) >= 5, f"{name}: at least five tests are needed"
    most_common = max(map(results.count, results))
    assert most_common <= 0.6 * len(results), f"{name}: a constant passes {most_common} of {len(results)} tests"
    calls = [f"{name}({', '.join(map(repr, arguments))})" for arguments in inputs]
    statement = " ".join(inspect.getdoc(function).split())
    return {
        "problem_id": f"easy/{name}",
        "prompt": f"Write a Python function `{name}{inspect.signature(function)}`. {statement} "
        f"For example, `{calls[0]}` returns `{results[0]!r}`.",
        "entry_point": name,
        "setup_code": "",
        "reference_solution": source_without_statement(function),
        "tests": [
            {
                "kind": "assert",
                "code": f"assert {call} == {result!r}",
                "stdin": None,
                "stdout": None,
                "input": None,
                "output": None,
            }
            for call, result in zip(calls, results, strict=True)
        ],
        "topic": topic,
        "split": split,
    }


def source_without_statement(function: Any) -> str:
    """The function's source without its decorator and docstring."""
    definition = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    del definition.body[0]
    return ast.unparse(definition) + "\n"


if __name__ == "__main__":
    main()
