"""What `select` says of its own number: tests that are all public, candidates of several sources, a user's own columns."""

from __future__ import annotations

import json
import logging

import pytest

from trl_rrtf import Evaluation, OutputError, RowError, SelectArguments, SelectConfig, run_select
from trl_rrtf.cli import main

RIGHT, WRONG = "def inc(x):\n    return x + 1\n", "def inc(x):\n    return 2 * x\n"
BY_TESTS = SelectConfig(by=["public_tests"], public_tests=1)


def row(name, programs, sources=None, models=None, tests=None):
    tests = tests or [{"kind": "assert", "code": "assert inc(1) == 2"}, {"kind": "assert", "code": "assert inc(2) == 3"}]
    return {
        "problem_id": name,
        "prompt": f"Increment, {name}.",
        "entry_point": "inc",
        "tests": tests,
        "completions": programs,
        "sources": sources or ["student"] * len(programs),
        "models": models or ["m"] * len(programs),
    }


CHECK = [{"kind": "check", "code": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 3\n"}]


@pytest.fixture
def select(tmp_path, caplog):
    """Chooses from rows; returns the summary, the evaluation, the rows and the warnings."""
    caplog.set_level(logging.WARNING, "trl_rrtf")

    def run(rows, config=BY_TESTS, name="s", evaluation=True):
        caplog.clear()
        (tmp_path / "c.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        file = tmp_path / f"{name}.json"
        output = tmp_path / f"{name}.jsonl"
        summary = run_select(SelectArguments(str(tmp_path / "c.jsonl"), str(output), str(file) if evaluation else None), config)
        chosen = [json.loads(line) for line in output.read_text().splitlines()]
        return summary, Evaluation.load(file, "e") if evaluation else None, chosen, caplog.text

    return run


def test_where_every_test_is_public_the_number_is_pass_at_n_and_says_so(select):
    says = "select@n is pass@n by construction"
    checks = [row("a", [WRONG, RIGHT], tests=CHECK), row("b", [WRONG, WRONG], tests=CHECK)]
    summary, evaluation, chosen, warnings = select(checks)
    assert summary.best_of_n.select == summary.best_of_n.any
    assert summary.table()["nothing hidden"] == f"of 2 problems every test is public: {says}"
    assert summary.table()["seen by the choice"] == "2 of 2 tests are public"
    assert f"of 2 problems every test is public: {says}" in warnings
    assert evaluation.best_of_n["problems_with_every_test_public"] == summary.all_public == 2
    assert chosen[0]["selection"]["signals"]["public_tests"] == [1, 2]  # assertions of the one test

    summary, evaluation, _, warnings = select([checks[0], row("c", [WRONG, RIGHT]), row("d", [RIGHT])], name="t")
    assert summary.table()["nothing hidden"] == f"of 3 problems, 1 with every test public: for those {says}"
    assert f"1 with every test public: for those {says}" in warnings
    assert evaluation.best_of_n["problems_with_every_test_public"] == 1
    assert summary.table()["narrowed by public_tests"] == "1 problem"

    summary, evaluation, _, warnings = select([row("c", [WRONG, RIGHT])], name="u")
    assert ("nothing hidden" in summary.table(), summary.all_public, warnings) == (False, 0, "")
    assert evaluation.best_of_n["problems_with_every_test_public"] == 0


def test_other_signals_before_the_tests_do_not_make_it_pass_at_n(select):
    config = SelectConfig(by=["agreement", "public_tests"], public_tests=1)
    summary, *_ = select([row("a", [WRONG, WRONG, RIGHT], tests=CHECK)], config)
    assert summary.table()["nothing hidden"] == "of 1 problem every test is public: the choice sees all that it is measured by"
    assert summary.best_of_n.select.mean < summary.best_of_n.any.mean


MIXED = [
    row("t", [WRONG, WRONG, RIGHT, RIGHT], ["student", "student", "teacher", "teacher"], ["S", "S", "GPT", "GPT"]),
    row("u", [RIGHT, WRONG, RIGHT, RIGHT], ["student", "student", "teacher", "reference"], ["S", "S", "GPT", "solution"]),
]


def test_candidates_of_several_sources_are_counted_and_named(select):
    summary, evaluation, _, warnings = select(MIXED)
    assert summary.drawn_from == {"student S": 4, "teacher GPT": 3}
    table = summary.table()
    assert (table["drawn from student S"], table["drawn from teacher GPT"]) == (4, 3)
    assert (
        "among the candidates of student S, teacher GPT together, and one sample is their mean; `--source student`" in warnings
    )
    assert evaluation.settings["model"].startswith("S, GPT, select@3-4 by")  # S, of which u's choice is, and GPT


def test_a_source_is_chosen_from_alone(select):
    summary, evaluation, chosen, warnings = select(MIXED, SelectConfig(by=["public_tests"], public_tests=1, source="student"))
    assert [each["sources"] for each in chosen] == [["student"], ["student"]]
    assert (summary.candidates, summary.other_sources, summary.references, summary.left_out) == (4, 3, 1, 0)
    assert summary.best_of_n.one_sample.mean == 1 / 4
    assert summary.table()["of another source (never chosen)"] == 3
    assert evaluation.settings["model"] == "S, select@2 by public_tests"
    assert "together" not in warnings
    with pytest.raises(OutputError, match=r"`select` was .*'source': 'student'"):
        select(MIXED)


def test_a_problem_without_a_candidate_of_the_source_is_refused(select):
    with pytest.raises(RowError, match="line 2, column `completions`: there is no candidate of source teacher to choose from"):
        select([MIXED[0], row("s", [RIGHT])], SelectConfig(by=["public_tests"], public_tests=1, source="teacher"))


def test_several_models_of_one_source_are_counted_too(select):
    summary, evaluation, _, warnings = select([row("a", [WRONG, RIGHT], models=["m1", "m2"])])
    assert summary.drawn_from == {"student m1": 1, "student m2": 1}
    assert "candidates of student m1, student m2 together, and one sample is their mean\n" in warnings
    assert evaluation.settings["model"] == "m1, m2, select@2 by public_tests"


def test_leaving_the_evaluation_out_later_is_said_in_the_users_terms(select, tmp_path):
    rows = [row("a", [WRONG, RIGHT])]
    select(rows)
    with pytest.raises(
        OutputError, match="`evaluation` was 'given, so that the candidates are judged' and is 'not given'"
    ) as error:
        select(rows, evaluation=False)
    assert "judged_here" not in str(error.value)
    # Candidates that have their verdicts are not judged for it: it decides no row, and the output serves both.
    judged = [json.loads(line) for line in (tmp_path / "s.jsonl.judged.jsonl").read_text().splitlines()]
    first = select(judged, name="j")
    assert select(judged, name="j", evaluation=False)[0].best_of_n == first[0].best_of_n


def test_without_programs_to_run_the_evaluation_alone_is_named(select):
    rows = [row("a", [WRONG, RIGHT]) | {"teacher_log_probs": [-2.0, -1.0]}]
    by_log_probability = SelectConfig(by=["log_probability"])
    select(rows, by_log_probability)
    with pytest.raises(OutputError, match=r"other settings: `evaluation` was 'given, [^;]*' and is 'not given'\. Give back"):
        select(rows, by_log_probability, evaluation=False)


def test_a_column_of_the_users_own_is_not_written_over(select):
    rows = [row("a", [WRONG, RIGHT]), row("b", [RIGHT]) | {"selection": "mine"}]
    with pytest.raises(RowError, match="line 2, column `selection`: it is a column of yours"):
        select(rows)
    for value in ({"index": 3}, [1], 0, False):
        with pytest.raises(RowError, match="column `selection`"):
            select([rows[0] | {"selection": value}])
    # What `select` wrote itself can be chosen from again.
    *_, chosen, _ = select(rows[:1], name="t")
    again = select(chosen, name="v")[2]
    assert (again[0]["completions"], again[0]["selection"]["of"]) == (chosen[0]["completions"], 1)
    assert select([rows[0] | {"selection": None}], name="w")[2][0]["selection"]["index"] == 0


def test_the_options_stand_on_the_command_line(tmp_path, capsys):
    (tmp_path / "c.jsonl").write_text(json.dumps(MIXED[0]) + "\n")
    files = ["--input", str(tmp_path / "c.jsonl"), "--output", str(tmp_path / "s.jsonl")]
    options = ["--by", "agreement", "--public_tests", "1", "--source", "teacher", "--number_tolerance", "1e-3"]
    assert main(["select", *files, *options]) == 0
    assert "of another source (never chosen)" in capsys.readouterr().out
