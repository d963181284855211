"""Row formats: what is accepted round-trips, what is not is named."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import logging

import pytest

from trl_rrtf import CandidateGroup, JudgedGroup, Outcome, Problem, RankedGroup, RowError, Verdict
from trl_rrtf.rows import checks
from trl_rrtf.rows.records import LEETCODE_IMPORTS, Candidate, RankedCandidate

PROBLEM = {
    "problem_id": "p/1",
    "prompt": "Write add.",
    "tests": [
        {"kind": "assert", "code": "assert add(1, 2) == 3", "stdin": None, "stdout": None, "input": None, "output": None}
    ],
    "entry_point": "add",
    "setup_code": "",
    "reference_solution": None,
}
CANDIDATES = {**PROBLEM, "completions": ["a", "b"], "sources": ["student", "reference"], "models": ["m", "reference"]}
VERDICT = {"outcome": "partial", "passed": 1, "total": 2, "seconds": 0.5, "detail": "AssertionError"}
JUDGED = {**CANDIDATES, "verdicts": [VERDICT, {**VERDICT, "outcome": "infrastructure"}]}
RANKED = {"prompt": "p", "completions": ["a", "b"], "scores": [1.0, 0.0], "sources": ["teacher", "student"]}
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("row_type", "row"), [(Problem, PROBLEM), (CandidateGroup, CANDIDATES), (JudgedGroup, JUDGED), (RankedGroup, RANKED)]
)
def test_rows_round_trip_with_unknown_columns(row_type, row):
    row = {**row, "split": "train", "topic": {"a": 1}}
    assert row_type.from_row(row, "here").to_row() == row


def test_a_conversational_group_round_trips():
    row = {"prompt": MESSAGES, "completions": [MESSAGES, MESSAGES], "scores": [1.0, 2.0]}
    assert RankedGroup.from_row(row, "here").to_row() == row


def test_outcomes_are_ordered_as_in_the_paper():
    order = ["compile_error", "runtime_error", "failed", "partial", "passed"]
    assert [outcome.label for outcome in sorted(set(Outcome) - {Outcome.INFRASTRUCTURE})] == order


@pytest.mark.parametrize(
    ("row_type", "row", "column", "message"),
    [
        (Problem, {**PROBLEM, "prompt": None}, "prompt", "the column is missing; the row has problem_id"),
        (Problem, {**PROBLEM, "prompt": ""}, "prompt", "expected text or messages"),
        (Problem, {**PROBLEM, "problem_id": 7}, "problem_id", "expected text, got int 7"),
        (Problem, {**PROBLEM, "tests": []}, "tests", "needs at least one test"),
        (Problem, {**PROBLEM, "tests": ["assert 1"]}, "tests[0]", "expected an object with the key `kind`"),
        (Problem, {**PROBLEM, "tests": [{"kind": "unit"}]}, "tests[0].kind", "expected one of assert, check, call, stdio"),
        (
            Problem,
            {**PROBLEM, "tests": [{"kind": "call", "input": "[]"}]},
            "tests[0].output",
            "a test of kind `call` needs text",
        ),
        (Problem, [1], None, "expected an object with named columns"),
        (CandidateGroup, {**CANDIDATES, "models": ["m"]}, "models", "one entry per completion (2), got 1"),
        (CandidateGroup, {**CANDIDATES, "completions": ["a", 1]}, "completions[1]", "expected text, got int 1"),
        (CandidateGroup, {**CANDIDATES, "sources": ["a", "b"]}, "sources[0]", "expected one of teacher, student, reference"),
        (CandidateGroup, {**CANDIDATES, "raw_completions": ["a"]}, "raw_completions", "one entry per completion (2), got 1"),
        (
            CandidateGroup,
            {**CANDIDATES, "raw_completions": [None, 1]},
            "raw_completions[1]",
            "expected text, or null, got int 1",
        ),
        (
            CandidateGroup,
            {**CANDIDATES, "teacher_log_probs": [None, float("nan")]},
            "teacher_log_probs[1]",
            "expected a finite number, or null",
        ),
        (CandidateGroup, {**CANDIDATES, "verdicts": [None, {"outcome": "won"}]}, "verdicts[1].outcome", "got str 'won'"),
        (JudgedGroup, CANDIDATES, "verdicts", "the column is missing"),
        (JudgedGroup, {**JUDGED, "verdicts": [VERDICT, None]}, "verdicts[1]", "has not been judged; run `trl-rrtf judge`"),
        (JudgedGroup, {**JUDGED, "verdicts": [VERDICT, {**VERDICT, "passed": 9}]}, "verdicts[1]", "more passed than there are"),
        (
            JudgedGroup,
            {**JUDGED, "verdicts": [VERDICT, {**VERDICT, "passed": -9}]},
            "verdicts[1].passed",
            "0 or more, got int -9",
        ),
        (JudgedGroup, {**JUDGED, "verdicts": [VERDICT, {**VERDICT, "passed": True}]}, "verdicts[1].passed", "got bool True"),
        (JudgedGroup, {**JUDGED, "verdicts": [VERDICT]}, "verdicts", "one entry per completion (2), got 1"),
        (JudgedGroup, {**JUDGED, "verdicts": [VERDICT, "ok"]}, "verdicts[1].outcome", "expected one of infrastructure"),
        (RankedGroup, {**RANKED, "completions": ["a", MESSAGES]}, "completions[1]", "expected text, as the prompt is"),
        (RankedGroup, {**RANKED, "prompt": MESSAGES}, "completions[0]", "expected messages, as the prompt is"),
        (RankedGroup, {**RANKED, "scores": [1.0, True]}, "scores[1]", "expected a finite number"),
        (RankedGroup, {**RANKED, "scores": [1.0, float("inf")]}, "scores[1]", "expected a finite number"),
        (RankedGroup, {**RANKED, "scores": "10"}, "scores", "expected a list"),
        (RankedGroup, {**RANKED, "scores": [1.0, 10**400]}, "scores[1]", "expected a finite number"),
        (RankedGroup, {**RANKED, "models": [["m"], "m"]}, "models[0]", "expected text, or null, got list ['m']"),
        (RankedGroup, {**RANKED, "outcomes": ["won", None]}, "outcomes[0]", "expected one of infrastructure, compile_error"),
        (RankedGroup, {**RANKED, "blob": b"x"}, "blob", "JSON cannot hold bytes b'x'"),
        (RankedGroup, {**RANKED, "far": [{"x": float("inf")}]}, "far", "JSON cannot hold float inf"),
    ],
)
def test_a_bad_row_names_place_column_and_what_to_do(row_type, row, column, message):
    with pytest.raises(RowError) as caught:
        row_type.from_row(row, "groups.jsonl, line 7")
    assert caught.value.column == column
    assert str(caught.value).startswith("groups.jsonl, line 7")
    assert message in str(caught.value)


def test_a_candidate_is_one_object():
    row = {**JUDGED, "raw_completions": ["```a```", None], "teacher_log_probs": [None, -0.5]}
    group = JudgedGroup.from_row(row, "here")
    assert group.candidates == [
        Candidate(program="a", source="student", model="m", raw="```a```", verdict=group.verdicts[0]),
        Candidate(program="b", source="reference", model="reference", teacher_log_prob=-0.5, verdict=group.verdicts[1]),
    ]
    assert [candidate.is_teachers for candidate in group.candidates] == [False, True]
    assert group.extra == {}
    assert group.to_row() == row
    unjudged = [dataclasses.replace(candidate, verdict=None) for candidate in group.candidates]
    assert "verdicts" not in CandidateGroup.from_problem(group, unjudged).to_row()


def test_a_ranked_candidate_is_one_object():
    row = {**RANKED, "models": ["t", None], "outcomes": ["passed", None], "problem_id": "p/1"}
    group = RankedGroup.from_row(row, "here")
    assert group.candidates == [
        RankedCandidate(completion="a", score=1.0, source="teacher", model="t", outcome="passed"),
        RankedCandidate(completion="b", score=0.0, source="student"),
    ]
    assert group.extra == {"problem_id": "p/1"}
    assert group.to_row() == row
    assert RankedCandidate(completion=[*MESSAGES, {"role": "assistant", "content": "yes"}], score=0.0).text == "yes"


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("passed", range(4))
@pytest.mark.parametrize("total", range(4))
def test_a_verdict_is_taken_exactly_if_its_counts_say_what_its_outcome_says(outcome, passed, total):
    means = {
        Outcome.INFRASTRUCTURE: passed <= total,
        Outcome.PASSED: passed == total > 0,
        Outcome.PARTIAL: 0 < passed <= total,
    }
    row = {"outcome": outcome.label, "passed": passed, "total": total}
    if means.get(outcome, passed == 0):
        assert Verdict.from_row(row, "here", "verdicts[0]").to_row() == {**row, "seconds": 0.0, "detail": ""}
    else:
        with pytest.raises(RowError, match=rf"here, column `verdicts\[0\]`: `{outcome.label}` with {passed} of {total} tests"):
            Verdict.from_row(row, "here", "verdicts[0]")


def test_columns_of_the_user_become_what_json_holds_and_each_is_told_once(caplog):
    checks._say_once.cache_clear()
    columns = {
        "at": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
        "day": datetime.date(2024, 5, 1),
        "time": datetime.time(12, 30),
        "took": datetime.timedelta(seconds=90),
        "price": decimal.Decimal("1.50"),
        "rating": float("nan"),
        "deep": {"days": (datetime.date(2024, 5, 2),), 7: None},
        "plain": [1, "a", None, True, 0.5],
    }
    with caplog.at_level(logging.WARNING, logger="trl_rrtf"):
        for _ in range(3):
            group = RankedGroup.from_row({**RANKED, **columns}, "here")
    assert group.extra == {
        "at": "2024-05-01T12:00:00+00:00",
        "day": "2024-05-01",
        "time": "12:30:00",
        "took": "0:01:30",
        "price": "1.50",
        "rating": None,
        "deep": {"days": ["2024-05-02"], "7": None},
        "plain": [1, "a", None, True, 0.5],
    }
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    assert told == [f"column `{name}`" for name in columns if name != "plain"]


def test_a_column_that_is_nested_too_deeply_is_refused():
    value: list = []
    for _ in range(3000):
        value = [value]
    with pytest.raises(RowError, match="column `deep`: nested too deeply"):
        RankedGroup.from_row({**RANKED, "deep": value}, "here")


SOLUTION = {**PROBLEM, "prompt": "Add.\n\nclass Solution:\n    def add(self, a: int) -> int:\n        "}
METHOD_TEST = {**PROBLEM["tests"][0], "code": "assert Solution().add(1) == 2"}


@pytest.mark.parametrize(
    "row",
    [
        SOLUTION,
        {**SOLUTION, "prompt": [{"role": "user", "content": SOLUTION["prompt"]}]},
        {**SOLUTION, "prompt": [{"role": "user", "content": [{"type": "text", "text": SOLUTION["prompt"]}]}]},
        {**PROBLEM, "entry_point": "Solution"},
        {**PROBLEM, "tests": [METHOD_TEST]},
    ],
)
def test_own_rows_in_leetcodes_style_have_what_leetcode_imports(row):
    problem = Problem.from_row(row, "here")
    assert problem.setup_code == LEETCODE_IMPORTS == "from typing import *\nfrom collections import *"
    assert Problem.from_row(problem.to_row(), "here") == problem, "once"
    group = CandidateGroup.from_row({**CANDIDATES, **row}, "here")
    assert group.setup_code == LEETCODE_IMPORTS
    assert Problem.from_row({**row, "setup_code": "import math"}, "here").setup_code == f"{LEETCODE_IMPORTS}\nimport math"


@pytest.mark.parametrize(
    "setup_code", ["from typing import List", "import math, collections", "x = 1\nfrom collections import deque", "def f("]
)
def test_setup_code_that_imports_those_itself_stays_as_it_is(setup_code):
    assert Problem.from_row({**SOLUTION, "setup_code": setup_code}, "here").setup_code == setup_code


def test_other_rows_get_no_setup_code():
    for prompt in (
        "Write a class SolutionSet.",
        "A solution is needed.",
        [{"role": "user", "content": None, "tool_calls": [1]}],
    ):
        assert Problem.from_row({**PROBLEM, "prompt": prompt}, "here").setup_code == ""


def test_a_completion_of_parts_is_read_by_its_text():
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert RankedCandidate(completion=parts, score=0.0).text == "ab"
    parts[0]["content"][1]["type"] = "image"
    with pytest.raises(RowError, match=r"content\[1\]`: expected \{\"type\": \"text\""):
        _ = RankedCandidate(completion=parts, score=0.0).text
