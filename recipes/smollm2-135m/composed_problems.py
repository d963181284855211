"""Problems composed of parts: which values of a list, what is done with each, what comes out.

    Write a Python function `total_of_squares_of_even(numbers)`. Return the sum of the squares of the even numbers. ...

A model of 135M parameters solves few of the problems that people write, so methods could not be told apart on them. Of these
it solves some before training, and a model that has learnt the parts from other compositions can solve a composition that it
never saw. `compose(count, seed)` draws different compositions; held-out ones share no composition with those of training.

    python recipes/smollm2-135m/composed_problems.py recipes/data/composed_problems.jsonl

writes the problems of the quick start.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

NUMBER_FILTERS = {
    "all": ("the numbers", "", ()),
    "even": ("the even numbers", "n % 2 == 0", ()),
    "odd": ("the odd numbers", "n % 2 == 1", ()),
    "positive": ("the numbers above zero", "n > 0", ()),
    "negative": ("the numbers below zero", "n < 0", ()),
    "above": ("the numbers greater than `limit`", "n > limit", ("limit",)),
    "below": ("the numbers less than `limit`", "n < limit", ("limit",)),
    "divisible": ("the numbers that are divisible by `divisor`", "n % divisor == 0", ("divisor",)),
    "not_divisible": ("the numbers that are not divisible by `divisor`", "n % divisor != 0", ("divisor",)),
    "other_than": ("the numbers that are not equal to `value`", "n != value", ("value",)),
    "two_digit": ("the numbers from 10 to 99", "10 <= n <= 99", ()),
    "between": ("the numbers between `low` and `high`, both included", "low <= n <= high", ("low", "high")),
}
"""Name -> (statement, condition on `n`, further arguments)."""

NUMBER_MAPS = {
    "": ("{}", "n"),
    "squares": ("the squares of {}", "n * n"),
    "doubles": ("twice each of {}", "2 * n"),
    "cubes": ("the cubes of {}", "n ** 3"),
    "absolutes": ("the absolute values of {}", "abs(n)"),
    "halves": ("the halves, rounded down, of {}", "n // 2"),
    "successors": ("one more than each of {}", "n + 1"),
    "negatives": ("the negatives of {}", "-n"),
    "last_digits": ("the last digits of {}", "abs(n) % 10"),
}
"""Name -> (statement around the filter's, expression of `n`)."""

NUMBER_RESULTS = {
    "total": ("the sum of {}", "return sum({values})"),
    "list": ("a list of {}", "return [{values}]"),
    "sorted": ("a sorted list of {}", "return sorted({values})"),
    "descending": ("a list of {}, largest first", "return sorted([{values}], reverse=True)"),
    "largest": ("the largest of {}, or 0 if there are none", "return max([{values}], default=0)"),
    "smallest": ("the smallest of {}, or 0 if there are none", "return min([{values}], default=0)"),
    "distinct": ("how many different values there are among {}", "return len(set({values}))"),
    "reversed": ("a list of {}, in reverse order", "return [{values}][::-1]"),
    "product": ("the product of {}", "result = 1\n    for x in [{values}]:\n        result *= x\n    return result"),
    "average": (
        "the mean of {}, or 0 if there are none",
        "values = [{values}]\n    return sum(values) / len(values) if values else 0",
    ),
}
"""Name -> (statement around the map's, program around the values)."""

WORD_FILTERS = {
    "all": ("the words", "", ()),
    "longer": ("the words with more than `size` letters", "len(w) > size", ("size",)),
    "shorter": ("the words with fewer than `size` letters", "len(w) < size", ("size",)),
    "starting": ("the words that start with `letter`", "w.startswith(letter)", ("letter",)),
    "ending": ("the words that end with `letter`", "w.endswith(letter)", ("letter",)),
    "containing": ("the words that contain `letter`", "letter in w", ("letter",)),
    "without": ("the words that do not contain `letter`", "letter not in w", ("letter",)),
    "capitalised": ("the words that start with a capital letter", "w[0].isupper()", ()),
    "even_length": ("the words with an even number of letters", "len(w) % 2 == 0", ()),
}
WORD_MAPS = {
    "": ("{}", "w"),
    "upper": ("{} in upper case", "w.upper()"),
    "lower": ("{} in lower case", "w.lower()"),
    "first_letters": ("the first letters of {}", "w[0]"),
    "last_letters": ("the last letters of {}", "w[-1]"),
    "backwards": ("{} spelled backwards", "w[::-1]"),
    "lengths": ("the lengths of {}", "len(w)"),
    "repeated": ("{}, each written twice without a space", "w * 2"),
}
WORD_RESULTS = {
    "list": ("a list of {}", "return [{values}]"),
    "sorted": ("a sorted list of {}", "return sorted({values})"),
    "reversed": ("a list of {}, in reverse order", "return [{values}][::-1]"),
    "distinct": ("how many different values there are among {}", "return len(set({values}))"),
    "first": ("the first of {}, or None if there are none", "values = [{values}]\n    return values[0] if values else None"),
    "last": ("the last of {}, or None if there are none", "values = [{values}]\n    return values[-1] if values else None"),
    "joined": ("{}, joined by spaces", 'return " ".join(str(x) for x in [{values}])'),
    "dashed": ("{}, joined by dashes", 'return "-".join(str(x) for x in [{values}])'),
}
WORDS = (
    "tea",
    "Apple",
    "river",
    "Lamp",
    "on",
    "stone",
    "Berlin",
    "cat",
    "green",
    "Echo",
    "level",
    "sun",
    "Notebook",
    "at",
    "kayak",
)
TESTS = 6
QUICK_START = {"heldout": 36, "train": 128}
"""How many problems of each split."""


def compose(count: int, seed: int) -> list[dict[str, Any]]:
    """Different problems, with reference solutions and tests, see `trl_rrtf.rows.records.Problem`.

    Args:
        count: How many; at most all compositions.
        seed: Fixes the draw: its first problems do not depend on `count`.

    Returns:
        Problem rows.
    """
    rng = random.Random(seed)
    kinds = {
        "numbers": ("n", NUMBER_FILTERS, NUMBER_MAPS, NUMBER_RESULTS),
        "words": ("w", WORD_FILTERS, WORD_MAPS, WORD_RESULTS),
    }
    compositions = [
        (kind, result, change, chosen)
        for kind, (_, filters, maps, results) in kinds.items()
        for result in results
        for change in maps
        for chosen in filters
    ]
    rng.shuffle(compositions)
    rows = (make_row(kind, *kinds[kind], result, change, chosen) for kind, result, change, chosen in compositions)
    return [row for row, _ in zip((row for row in rows if row), range(count), strict=False)]


def make_row(
    kind: str,
    variable: str,
    filters: dict[str, Any],
    maps: dict[str, Any],
    results: dict[str, Any],
    result: str,
    change: str,
    chosen: str,
) -> dict[str, Any] | None:
    """One problem, or None if a constant passes most of its tests."""
    which, condition, arguments = filters[chosen]
    each, expression = maps[change]
    outcome, program = results[result]
    name = "_".join(part for part in (result, change, chosen) if part)
    signature = ", ".join((kind, *arguments))
    values = f"{expression} for {variable} in {kind}" + (f" if {condition}" if condition else "")
    solution = f"def {name}({signature}):\n    {program.format(values=values)}\n"
    namespace: dict[str, Any] = {}
    exec(solution, namespace)
    rng = random.Random(name)
    inputs = [([], *draw_arguments(arguments, rng))]
    while len(inputs) < TESTS:
        inputs.insert(0, (draw_list(kind, rng), *draw_arguments(arguments, rng)))
    expected = [namespace[name](*given) for given in inputs]
    if max(map(expected.count, expected)) > TESTS // 2:
        return None
    calls = [f"{name}({', '.join(map(repr, given))})" for given in inputs]
    empty = {"kind": "assert", "stdin": None, "stdout": None, "input": None, "output": None}
    statement = outcome.format(each.format(which))
    return {
        "problem_id": f"composed/{kind}/{name}",
        "prompt": f"Write a Python function `{name}({signature})`. Return {statement}. "
        f"For example, `{calls[0]}` returns `{expected[0]!r}`.",
        "entry_point": name,
        "setup_code": "",
        "reference_solution": solution,
        "tests": [{**empty, "code": f"assert {call} == {value!r}"} for call, value in zip(calls, expected, strict=True)],
        "topic": kind,
    }


def draw_list(kind: str, rng: random.Random) -> list[Any]:
    """Six values."""
    return rng.sample(range(-9, 40), 6) if kind == "numbers" else rng.sample(WORDS, 6)


def draw_arguments(names: tuple[str, ...], rng: random.Random) -> list[Any]:
    """Values of a filter's arguments."""
    drawn = {
        "limit": rng.randint(0, 15),
        "divisor": rng.randint(2, 5),
        "value": rng.randint(-9, 39),
        "low": rng.randint(-9, 5),
        "high": rng.randint(10, 30),
        "size": rng.randint(3, 5),
        "letter": rng.choice("aeltn"),
    }
    return [drawn[name] for name in names]


def main() -> None:
    """Writes the quick start's problems."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the file to write (.jsonl)")
    output = parser.parse_args().output
    splits = [split for split, number in QUICK_START.items() for _ in range(number)]
    rows = [{**row, "split": split} for row, split in zip(compose(len(splits), seed=0), splits, strict=True)]
    output.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
