"""Two sets of programs: hostile ones, which get a verdict that is no pass, and right but unusual ones, which pass.

Each runs with all layers, and as in Docker by default: without namespaces and a file view of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import trl_rrtf.judging.judge as judge_module
from trl_rrtf import Judge, JudgeConfig, Outcome, Problem

FOLDER = Path(__file__).parent
CANARY = "/tmp/adv_canary"
"""Where the hostile programs look for a folder that everybody may write to."""
LAYERS_LEFT_OUT = {"all layers": (), "as in Docker": ("namespaces", "file view", "bubblewrap")}


def programs(name, canary):
    for line in (FOLDER / name).read_text().replace(CANARY, str(canary)).splitlines():
        row = json.loads(line)
        code, name = row.pop("code"), row.pop("id")
        row.pop("accept")
        yield Problem.from_row({**row, "problem_id": name}, name), code


def verdicts(name, canary):
    with Judge(JudgeConfig(timeout=3, num_workers=2)) as judge:
        problems, codes = zip(*programs(name, canary), strict=True)
        found = list(judge.judge_many(zip(problems, codes, strict=True)))
        assert not judge.judge(*next(programs("right_programs.jsonl", canary))).detail  # the judge is still well
    return {problem.problem_id: verdict for problem, verdict in zip(problems, found, strict=True)}


@pytest.fixture
def canary(tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o777)  # pytest's folders are its user's alone
    folder = tmp_path / "canary"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "victim.txt").write_text("untouched")
    (folder / "victim.txt").chmod(0o666)
    return folder


@pytest.mark.parametrize("without", LAYERS_LEFT_OUT.values(), ids=LAYERS_LEFT_OUT)
def test_hostile_programs_get_a_verdict_and_do_not_pass(without, canary, monkeypatch):
    monkeypatch.setattr(judge_module, "_LAYERS_LEFT_OUT", without)
    found = verdicts("hostile_programs.jsonl", canary)
    assert len(found) == 32
    assert not {name: v for name, v in found.items() if v.outcome in (Outcome.PASSED, Outcome.INFRASTRUCTURE)}
    assert [path.name for path in canary.iterdir()] == ["victim.txt"]
    assert (canary / "victim.txt").read_text() == "untouched"


@pytest.mark.parametrize("without", LAYERS_LEFT_OUT.values(), ids=LAYERS_LEFT_OUT)
def test_right_but_unusual_programs_pass(without, canary, monkeypatch):
    monkeypatch.setattr(judge_module, "_LAYERS_LEFT_OUT", without)
    found = verdicts("right_programs.jsonl", canary)
    assert len(found) == 24
    assert not {name: verdict for name, verdict in found.items() if verdict.outcome is not Outcome.PASSED}
