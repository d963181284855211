"""The composed problems: different, solvable, and not by a constant."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from trl_rrtf import Judge, JudgeConfig
from trl_rrtf.rows.records import Outcome, Problem

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2-135m" / "composed_problems.py"


@pytest.fixture(scope="module")
def composed_problems():
    spec = importlib.util.spec_from_file_location("composed_problems", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_draw_starts_as_a_longer_draw_of_the_same_seed(composed_problems):
    assert composed_problems.compose(5, seed=3) == composed_problems.compose(50, seed=3)[:5]
    assert composed_problems.compose(5, seed=3) != composed_problems.compose(5, seed=4)


def test_all_compositions_differ(composed_problems):
    rows = composed_problems.compose(100_000, seed=0)
    for name in ("problem_id", "prompt", "reference_solution"):
        assert len({row[name] for row in rows}) == len(rows) > 1000


def test_no_constant_passes_half_of_the_tests(composed_problems):
    for row in composed_problems.compose(200, seed=0):
        expected = [test["code"].rpartition(" == ")[2] for test in row["tests"]]
        assert max(map(expected.count, expected)) <= len(expected) // 2


def test_references_pass_their_tests(composed_problems):
    rows = composed_problems.compose(24, seed=1)
    assert {row["topic"] for row in rows} == {"numbers", "words"}
    with Judge(JudgeConfig()) as judge:
        items = [(Problem.from_row(row, row["problem_id"]), row["reference_solution"]) for row in rows]
        outcomes = [verdict.outcome for verdict in judge.judge_many(items)]
    assert outcomes == [Outcome.PASSED] * 24


def test_the_quick_starts_problems_are_those_of_the_script(tmp_path):
    subprocess.run([sys.executable, str(RECIPE), str(tmp_path / "made.jsonl")], check=True)
    made = (tmp_path / "made.jsonl").read_text()
    assert made == (RECIPE.parents[1] / "data" / "composed_problems.jsonl").read_text()
    assert Counter(json.loads(line)["split"] for line in made.splitlines()) == {"heldout": 36, "train": 128}
