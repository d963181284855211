"""The judge stage: resumable, same verdicts, stops when the judge is broken."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import logging

import pyarrow
import pyarrow.parquet
import pytest

from trl_rrtf import (
    ConfigError,
    Isolation,
    Judge,
    JudgeConfig,
    JudgedGroup,
    JudgeError,
    LoadError,
    Outcome,
    OutputError,
    RowError,
)
from trl_rrtf.judging.config import JudgeArguments
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.judging.wire.protocol import Judged
from trl_rrtf.judging.worker import Worker, WorkerDiedError
from trl_rrtf.rows import checks
from trl_rrtf.rows.files import read_rows


def write_candidates(path, groups):
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": "Write f.",
            "tests": [{"kind": "assert", "code": f"assert f() == {i}"}, {"kind": "assert", "code": "assert f() >= 0"}],
            "entry_point": "f",
            "completions": [
                f"def f():\n    return {i}\n",
                "def f(\n",
                f"def f():\n    return {i}\n",
                "def f():\n    return 77\n",
            ],
            "sources": ["reference", "student", "student", "student"],
            "models": ["reference", "m", "m", "m"],
        }
        for i in range(groups)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def outcomes(path):
    return [[verdict.outcome for verdict in group.verdicts] for group in read_rows(path, JudgedGroup)]


def test_every_candidate_gets_its_verdict_and_equal_programs_run_once(tmp_path):
    write_candidates(tmp_path / "c.jsonl", 3)
    summary = run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(num_workers=2))
    assert outcomes(tmp_path / "j.jsonl") == [[Outcome.PASSED, Outcome.COMPILE_ERROR, Outcome.PASSED, Outcome.PARTIAL]] * 3
    assert (summary.groups, summary.candidates, summary.programs_run) == (3, 12, 9)
    assert list(summary.outcomes) == ["passed", "partial", "failed", "runtime_error", "compile_error", "infrastructure"]
    assert summary.outcomes["passed"] == 6
    shown = summary.table()
    assert (shown["groups"], shown["passed"], shown["partial"], shown["programs run"]) == (3, 6, 3, 9)
    assert list(shown)[-3:] == ["programs per second", "isolation", "output"]


def test_an_interrupted_run_goes_on_and_a_finished_one_is_left_alone(tmp_path):
    write_candidates(tmp_path / "c.jsonl", 4)
    arguments = JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl"))
    run_judge(arguments, JudgeConfig(num_workers=2))
    whole = outcomes(tmp_path / "j.jsonl")
    lines = (tmp_path / "j.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "j.jsonl").unlink()
    (tmp_path / "j.jsonl.partial").write_text("".join(lines[:2]) + lines[2][:50])
    summary = run_judge(arguments, JudgeConfig(num_workers=2))
    assert outcomes(tmp_path / "j.jsonl") == whole
    assert (tmp_path / "j.jsonl").read_text().splitlines(keepends=True)[:2] == lines[:2]
    assert summary.programs_run == 6
    assert summary.candidates == 16


def test_a_finished_run_starts_no_worker_and_says_what_the_first_one_said(tmp_path, monkeypatch):
    write_candidates(tmp_path / "c.jsonl", 2)
    arguments = JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl"))
    first = run_judge(arguments, JudgeConfig(num_workers=1))
    before = (tmp_path / "j.jsonl").read_bytes()
    monkeypatch.setattr(Worker, "judge", None)
    monkeypatch.setattr(Judge, "__init__", None)
    # What cannot change a verdict may be another; what can is refused.
    again = run_judge(arguments, JudgeConfig(num_workers=2, retries=0, max_infrastructure_fraction=0.5))
    assert dataclasses.replace(again, programs_run=first.programs_run, programs_per_second=first.programs_per_second) == first
    assert again.programs_run == 0
    assert (tmp_path / "j.jsonl").read_bytes() == before
    for name, value in (("timeout", 3.0), ("memory_mb", 512), ("second_run", True), ("stop_at_first_failure", True)):
        with pytest.raises(OutputError, match=f"`{name}` was .* and is {value}"):
            run_judge(arguments, JudgeConfig(**{name: value}))


def test_a_broken_judge_stops_the_run_and_keeps_what_is_judged(tmp_path, monkeypatch):
    write_candidates(tmp_path / "c.jsonl", 10)
    calls = []

    def breaks(worker, problem, program):
        calls.append(program)
        if len(calls) > 15:
            raise WorkerDiedError("it broke")
        return Judged(4, 2, 2, 0.0, "", False)

    monkeypatch.setattr(Judge, "isolation", lambda judge: Isolation({}, {}))
    monkeypatch.setattr(Worker, "judge", breaks)
    with pytest.raises(JudgeError, match=r"\d of 2\d candidates could not be judged.*candidate \d of problem 'p/\d'.*it broke"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(retries=0, num_workers=1))
    assert not (tmp_path / "j.jsonl").exists()
    assert (tmp_path / "j.jsonl.partial").exists()
    kept = (tmp_path / "j.jsonl.partial").read_text().splitlines()
    assert len(kept) == 6  # the group with the failure too, so that the next run does not stop at the same place
    calls.clear()
    monkeypatch.setattr(Worker, "judge", lambda worker, problem, program: Judged(4, 2, 2, 0.0, "", False))
    run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(retries=0, num_workers=1))
    assert (tmp_path / "j.jsonl").read_text().splitlines()[: len(kept)] == kept


def test_a_judge_that_does_not_start_is_told_before_any_program_runs(tmp_path, monkeypatch):
    write_candidates(tmp_path / "c.jsonl", 10)
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(JudgeError, match="the judge's workers do not start: FileNotFoundError"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(retries=0))


def test_the_summary_names_the_isolation(tmp_path):
    write_candidates(tmp_path / "c.jsonl", 1)
    summary = run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(num_workers=1))
    assert "network" in summary.isolation


def test_a_bad_row_is_named_before_any_program_runs(tmp_path):
    rows = write_candidates(tmp_path / "c.jsonl", 2)
    (tmp_path / "c.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps({**rows[1], "models": []}) + "\n")
    with pytest.raises(RowError, match=r"c\.jsonl, line 2, column `models`"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl"]


def test_what_a_candidate_carries_goes_through_the_judge(tmp_path):
    rows = write_candidates(tmp_path / "c.jsonl", 1)
    row = {**rows[0], "raw_completions": ["r0", None, "r2", "r3"], "teacher_log_probs": [-0.5, None, -1.5, -2.0], "split": "a"}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
    run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(num_workers=1))
    judged = json.loads((tmp_path / "j.jsonl").read_text())
    assert {name: judged[name] for name in row if name != "tests"} == {name: row[name] for name in row if name != "tests"}
    assert [verdict["outcome"] for verdict in judged["verdicts"]] == ["passed", "compile_error", "passed", "partial"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("output", ["c.jsonl", "sub/../c.jsonl", "link.jsonl"])
def test_an_output_that_is_the_input_is_refused_and_nothing_is_deleted(tmp_path, output, overwrite):
    write_candidates(tmp_path / "c.jsonl", 1)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "c.jsonl")
    (tmp_path / "sub").mkdir()
    before = (tmp_path / "c.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"`output`: .*`input`"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / output), overwrite), JudgeConfig())
    assert (tmp_path / "c.jsonl").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"c.jsonl", "link.jsonl", "sub"}


# --- Extra columns, which are the user's -------------------------------------------------------------------------------------


def judge_never(monkeypatch):
    """From now on, a program that runs is an error."""
    monkeypatch.setattr(Judge, "__init__", None)


def write_parquet(path, rows, **columns):
    table = pyarrow.Table.from_pylist(rows)
    for name, column in columns.items():
        table = table.append_column(name, column)
    pyarrow.parquet.write_table(table, path)


@pytest.fixture
def no_column_said():
    """Each column is told once in a process: here again."""
    checks._say_once.cache_clear()


@pytest.mark.usefixtures("no_column_said")
@pytest.mark.parametrize("output", ["j.jsonl", "j.parquet"])
def test_dates_times_and_decimals_are_carried_as_text_and_said_once(tmp_path, output, caplog):
    rows = write_candidates(tmp_path / "c.jsonl", 2)
    write_parquet(
        tmp_path / "c.parquet",
        rows,
        written=pyarrow.array([datetime.datetime(2024, 5, 1, 12, 30)] * 2, pyarrow.timestamp("us")),
        day=pyarrow.array([datetime.date(2024, 5, 1)] * 2),
        price=pyarrow.array([decimal.Decimal("1.50")] * 2),
        nested=pyarrow.array([{"on": datetime.date(2024, 5, 2)}] * 2),
    )
    with caplog.at_level(logging.WARNING, logger="trl_rrtf"):
        run_judge(JudgeArguments(str(tmp_path / "c.parquet"), str(tmp_path / output)), JudgeConfig(num_workers=1))
    for group in read_rows(tmp_path / output, JudgedGroup):
        assert {name: group.extra[name] for name in ("written", "day", "price", "nested")} == {
            "written": "2024-05-01T12:30:00",
            "day": "2024-05-01",
            "price": "1.50",
            "nested": {"on": "2024-05-02"},
        }
    said = [record.getMessage() for record in caplog.records]
    for column in ("written", "day", "price", "nested"):
        assert len([message for message in said if f"column `{column}`" in message]) == 1, said


@pytest.mark.usefixtures("no_column_said")
def test_a_nan_becomes_null_and_is_said(tmp_path, caplog):
    rows = write_candidates(tmp_path / "c.jsonl", 2)
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({**row, "rating": float("nan"), "n": [1]}) + "\n" for row in rows))
    with caplog.at_level(logging.WARNING, logger="trl_rrtf"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(num_workers=1))
    assert [group.extra for group in read_rows(tmp_path / "j.jsonl", JudgedGroup)] == [{"rating": None, "n": [1]}] * 2
    assert [record.getMessage() for record in caplog.records] == ["column `rating`: NaN is written as null"]


def test_bytes_and_infinity_are_refused_before_any_program_runs(tmp_path, monkeypatch):
    judge_never(monkeypatch)
    rows = write_candidates(tmp_path / "c.jsonl", 2)
    write_parquet(tmp_path / "c.parquet", rows, blob=pyarrow.array([None, b"\x00"], pyarrow.binary()))
    with pytest.raises(RowError, match=r"c\.parquet, row 1, column `blob`: .* JSON cannot hold bytes .*make it text"):
        run_judge(JudgeArguments(str(tmp_path / "c.parquet"), str(tmp_path / "j.jsonl")), JudgeConfig())
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({**row, "x": [{"y": float("-inf")}]}) + "\n" for row in rows))
    with pytest.raises(RowError, match=r"c\.jsonl, line 1, column `x`: .* JSON cannot hold float -inf"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig())
    assert not list(tmp_path.glob("j.jsonl*"))


@pytest.mark.parametrize(
    ("column", "values", "place"),
    [
        ("teacher_log_probs", [0.0, None, 0.0, "likely"], "teacher_log_probs[3]"),
        ("teacher_log_probs", [0.0, None, 0.0, float("nan")], "teacher_log_probs[3]"),
        ("raw_completions", ["a", 1, "c", "d"], "raw_completions[1]"),
        ("raw_completions", ["a"], "raw_completions"),
    ],
)
def test_bad_columns_of_the_candidates_are_refused_before_any_program_runs(tmp_path, monkeypatch, column, values, place):
    judge_never(monkeypatch)
    rows = write_candidates(tmp_path / "c.jsonl", 1)
    (tmp_path / "c.jsonl").write_text(json.dumps({**rows[0], column: values}) + "\n")
    with pytest.raises(RowError) as caught:
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig())
    assert caught.value.column == place


@pytest.mark.parametrize("name", ["c.jsonl.zst", "c.arrow"])
def test_an_input_that_cannot_be_read_is_named_before_any_program_runs(tmp_path, monkeypatch, name):
    judge_never(monkeypatch)
    (tmp_path / name).write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(LoadError, match=rf"{name}`: \.\w+ files are not read; give \.jsonl"):
        run_judge(JudgeArguments(str(tmp_path / name), str(tmp_path / "j.jsonl")), JudgeConfig())


# --- Options -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": float("inf")}, "`timeout`: expected a number above 0 and at most 86400, got inf"),
        ({"timeout": float("nan")}, "`timeout`: expected a number above 0 and at most 86400, got nan"),
        ({"timeout": 0}, "`timeout`: expected a number above 0 and at most 86400, got 0"),
        ({"timeout": 86_401}, "got 86401"),
        ({"timeout": "soon"}, "`timeout`: expected a number, got str 'soon'"),
        ({"memory_mb": 31}, "`memory_mb`: expected at least 32 and at most 16777216, got 31"),
        ({"memory_mb": 2**40}, "at most 16777216, got 1099511627776"),
        ({"memory_mb": 10**400}, "`memory_mb`: expected at least 32"),
        ({"max_output_bytes": 0}, "`max_output_bytes`: expected at least 1"),
        ({"max_output_bytes": 2**41}, "and at most 1099511627776"),
        ({"num_workers": 1.5}, "`num_workers`: expected a whole number, got float 1.5"),
        ({"num_workers": 0}, "`num_workers`: expected at least 1, got 0"),
        ({"retries": -1}, "`retries`: expected at least 0, got -1"),
        ({"max_infrastructure_fraction": 1.5}, "`max_infrastructure_fraction`: expected at least 0 and at most 1, got 1.5"),
        ({"second_run": "false"}, "`second_run`: expected true or false, got str 'false'"),
        ({"required_isolation": "network"}, "`required_isolation`: expected a list, such as ['network']"),
        ({"required_isolation": ["moat"]}, "`required_isolation`: expected some of memory, processes,"),
    ],
)
def test_limits_that_no_run_can_keep_are_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        JudgeConfig(**options)
    assert message in str(caught.value)


def test_numbers_as_text_are_numbers():
    assert JudgeConfig(timeout="3", memory_mb="64", num_workers="2") == JudgeConfig(timeout=3.0, memory_mb=64, num_workers=2)


@pytest.mark.parametrize(
    "limits",
    [
        {"timeout": 86_400, "memory_mb": 2**24, "max_output_bytes": 2**40},
        {"timeout": 5, "memory_mb": 1024, "max_output_bytes": 1},
    ],
)
def test_the_outermost_limits_work(tmp_path, limits):
    write_candidates(tmp_path / "c.jsonl", 1)
    run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(**limits, num_workers=1))
    assert outcomes(tmp_path / "j.jsonl") == [[Outcome.PASSED, Outcome.COMPILE_ERROR, Outcome.PASSED, Outcome.PARTIAL]]
