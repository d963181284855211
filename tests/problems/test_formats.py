"""Rows of every published format: they load, round-trip, their reference passes, a broken program does not."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path

import pytest

from trl_rrtf import Judge, Outcome, Problem, RowError, load_problems
from trl_rrtf.problems import iterate_problems
from trl_rrtf.problems.formats import FORMATS

FIXTURES = Path(__file__).with_name("fixtures")
WITHOUT_REFERENCE = {
    "livecodebench": [
        "class Solution:\n    def at(self, xs: List[int], i: int) -> int:\n        return xs[i]\n",
        "print(sum(map(int, input().split())))\n",
    ]
}
WITHOUT_TESTS = {"codealpaca"}
NAMES = sorted(path.stem for path in FIXTURES.glob("*.jsonl"))


def rows(name):
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_there_is_a_fixture_for_every_format():
    told = {
        next((key for key, entry in FORMATS.items() if entry.columns <= set(row)), None) for name in NAMES for row in rows(name)
    }
    assert told == {*FORMATS, None}, "None: rows of our own"


@pytest.fixture(scope="module")
def judge():
    with Judge() as judge:
        yield judge


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_TESTS))
def test_rows_round_trip_and_only_a_right_program_passes(judge, name):
    problems = load_problems(str(FIXTURES / f"{name}.jsonl"))
    assert len(problems) == len(rows(name))
    references = WITHOUT_REFERENCE.get(name) or [problem.reference_solution for problem in problems]
    for problem, reference in zip(problems, references, strict=True):
        assert Problem.from_row(problem.to_row(), "here") == problem
        assert problem.problem_id not in ("", "/")
        verdict = judge.judge(problem, reference)
        assert verdict.outcome is Outcome.PASSED, verdict
        broken = judge.judge(problem, reference.replace("return ", "return None and ").replace("print(", "print('no', "))
        assert broken.outcome < Outcome.PASSED


def test_problems_without_tests_load_only_where_they_are_asked_for():
    path = str(FIXTURES / "codealpaca.jsonl")
    first, second = iterate_problems(path, require_tests=False)
    assert (first.tests, second.prompt) == ([], "Sort this list.\n[3, 1]")
    assert first.problem_id != second.problem_id
    with pytest.raises(RowError, match=r"codealpaca.jsonl, line 1: the row has no test"):
        load_problems(path)


def test_tacos_rows_of_one_name_are_told_apart_by_their_content(tmp_path):
    """The published file has many such rows; one without a name is told by its content alone."""
    (row,) = rows("taco")[:1]
    other = {**row, "question": "Read a line, print it."}
    nameless = {**other, "name": None}
    problems = load_problems(write(tmp_path / "p.jsonl", row, other, nameless))
    ids = [problem.problem_id for problem in problems]
    assert len(set(ids)) == 3
    assert all(problem_id.startswith("codeforces/join two lines-") for problem_id in ids[:2])
    assert load_problems(write(tmp_path / "q.jsonl", nameless, row))[1].problem_id == ids[0], "wherever the row stands"


def test_the_method_of_a_solution_is_what_leetcodes_tests_call():
    (problem,) = load_problems(str(FIXTURES / "leetcode.jsonl"))
    assert problem.entry_point == "Solution"
    assert "def longestWord(self" in problem.prompt


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("apps", {"input_output": "{"}, "line 1, column `input_output`: not JSON"),
        ("apps", {"input_output": "{}"}, "line 1, column `input_output`: there is no test"),
        ("apps", {"question": None}, "line 1: a column has another content"),
        ("mbpp", {"test_list": [], "challenge_test_list": []}, "line 1, column `test_list`: the list is empty"),
        ("mbpp", {"code": "def f("}, "line 1: `code`, `test_list` or the setup code does not parse"),
        ("humaneval_x", {"declaration": "int last("}, "line 1, column `declaration`: it does not parse"),
        ("leetcode", {"entry_point": "longest"}, r"line 1, column `entry_point`: expected `Class\(\).method`"),
        ("codereval", {"level": "project_runnable"}, "line 1, column `level`: only self_contained and slib_runnable"),
        ("codereval", {"test": None}, "line 1: the row has no test"),
        ("code_contests", {"public_tests": None, "private_tests": None, "generated_tests": None}, "there is no test in any"),
        ("livecodebench", {"private_test_cases": "!!"}, "column `private_test_cases`: neither JSON nor packed JSON"),
    ],
)
def test_rows_that_break_their_format_are_named(tmp_path, name, change, message):
    with pytest.raises(RowError, match=message):
        load_problems(write(tmp_path / "p.jsonl", {**rows(name)[0], **change}))


def test_a_packed_test_that_would_run_code_is_refused(tmp_path):
    packed = base64.b64encode(zlib.compress(pickle.dumps(Path("x")))).decode()
    with pytest.raises(RowError, match=r"it holds pathlib\.\w+, and only text is read"):
        load_problems(write(tmp_path / "p.jsonl", {**rows("livecodebench")[0], "private_test_cases": packed}))
