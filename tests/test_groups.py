"""Row formats: what is accepted round-trips, what is not is named."""

from __future__ import annotations

import pytest

from trl_rrtf import CandidateGroup, JudgedGroup, Outcome, Problem, RankedGroup, RowError

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
        (JudgedGroup, {**JUDGED, "verdicts": [VERDICT]}, "verdicts", "one entry per completion (2), got 1"),
        (JudgedGroup, {**JUDGED, "verdicts": [VERDICT, "ok"]}, "verdicts[1].outcome", "expected one of infrastructure"),
        (RankedGroup, {**RANKED, "completions": ["a", MESSAGES]}, "completions[1]", "expected text, as the prompt is"),
        (RankedGroup, {**RANKED, "prompt": MESSAGES}, "completions[0]", "expected messages, as the prompt is"),
        (RankedGroup, {**RANKED, "scores": [1.0, True]}, "scores[1]", "expected a finite number"),
        (RankedGroup, {**RANKED, "scores": [1.0, float("inf")]}, "scores[1]", "expected a finite number"),
        (RankedGroup, {**RANKED, "scores": "10"}, "scores", "expected a list"),
    ],
)
def test_a_bad_row_names_place_column_and_what_to_do(row_type, row, column, message):
    with pytest.raises(RowError) as caught:
        row_type.from_row(row, "groups.jsonl, line 7")
    assert caught.value.column == column
    assert str(caught.value).startswith("groups.jsonl, line 7")
    assert message in str(caught.value)
