"""The judge stage: resumable, same verdicts, stops when the judge is broken."""

from __future__ import annotations

import json

import pytest

from trl_rrtf import Isolation, Judge, JudgeConfig, JudgedGroup, JudgeError, Outcome, RowError
from trl_rrtf.judging.config import JudgeArguments
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.judging.worker import Worker, WorkerDiedError
from trl_rrtf.row_files import read_rows


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
    assert (summary["candidates"], summary["passed"], summary["programs run"]) == (12, 6, 9)


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
    assert summary["programs run"] == 6
    assert run_judge(arguments, JudgeConfig(num_workers=1))["programs run"] == 0


def test_a_broken_judge_stops_the_run_and_keeps_what_is_judged(tmp_path, monkeypatch):
    write_candidates(tmp_path / "c.jsonl", 10)
    calls = []

    def breaks(worker, problem, program):
        calls.append(program)
        if len(calls) > 15:
            raise WorkerDiedError("it broke")
        return {"outcome": 4, "passed": 2, "total": 2, "seconds": 0.0, "detail": "", "starved": False}

    monkeypatch.setattr(Judge, "isolation", lambda judge: Isolation({}, {}))
    monkeypatch.setattr(Worker, "judge", breaks)
    with pytest.raises(JudgeError, match=r"\d of 2\d candidates could not be judged.*it broke"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(retries=0, num_workers=1))
    assert not (tmp_path / "j.jsonl").exists()
    assert (tmp_path / "j.jsonl.partial").exists()


def test_a_judge_that_does_not_start_is_told_before_any_program_runs(tmp_path, monkeypatch):
    write_candidates(tmp_path / "c.jsonl", 10)
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(JudgeError, match="the judge's workers do not start: FileNotFoundError"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(retries=0))


def test_the_summary_names_the_isolation(tmp_path):
    write_candidates(tmp_path / "c.jsonl", 1)
    summary = run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig(num_workers=1))
    assert "network" in summary["isolation"]


def test_a_bad_row_is_named_before_any_program_runs(tmp_path):
    rows = write_candidates(tmp_path / "c.jsonl", 2)
    (tmp_path / "c.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps({**rows[1], "models": []}) + "\n")
    with pytest.raises(RowError, match=r"c\.jsonl, line 2, column `models`"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl"]
