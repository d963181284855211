"""The experiment's parts: pairs, choice of the learning rate, a method that goes on where it stopped."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2-135m" / "experiment.py"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("experiment", RECIPE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPE.parent)  # as for a script: it imports the file beside it
        spec.loader.exec_module(module)
    return module


def group(number):
    return {
        "prompt": f"Write f, number {number}.\n",
        "completions": ["def f(:\n", f"def f():\n    return {number}\n", "def f():\n    return 0\n"],
        "scores": [0.0, 3.25, 3.0],
        "sources": ["student", "reference", "student"],
        "outcomes": ["compile_error", "passed", "passed"],
    }


def test_pairs_are_best_and_worst_and_equal_scores_make_none(experiment):
    even = {**group(2), "scores": [1.0, 1.0, 1.0]}
    assert experiment.pairs_of([group(1), even]) == [
        {"prompt": "Write f, number 1.\n", "chosen": "def f():\n    return 1\n", "rejected": "def f(:\n"}
    ]


@pytest.mark.parametrize("method", ["rrtf", "rrhf", "rrtf-lambda", "sft-same-rate", "rejection", "dpo", "simpo"])
def test_every_method_trains_as_many_updates_on_the_same_groups(experiment, method, tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    groups = [group(i) for i in range(16)]
    result = experiment.train(method, tiny_model_dir, groups, tmp_path / "model", 1e-3, seed=0, num_updates=2)
    assert result["updates"] == 2
    assert [entry["step"] for entry in result["curve"]] == [1, 2]
    assert result["tokens"] > 0
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_rejection_sampling_learns_each_passing_program_of_the_student_once(experiment, tmp_path):
    passing, failing = "def f():\n    return 1\n", "def f(:\n"
    row = {
        "prompt": "Write f.",
        "completions": [passing, failing, passing, "def f():\n    return 2 - 1\n"],
        "sources": ["student", "student", "student", "reference"],
        "verdicts": [{"outcome": label} for label in ("passed", "compile_error", "passed", "passed")],
    }
    (tmp_path / "judged.jsonl").write_text(json.dumps(row) + "\n")
    rows = experiment.own_passing_programs(tmp_path / "judged.jsonl")
    assert [found["completions"] for found in rows] == [[passing]]
    assert "Write f." in rows[0]["prompt"]


def test_without_a_teacher_the_groups_are_those_where_the_students_programs_differ(experiment, tmp_path):
    passing, failing = "def f():\n    return 1\n", "def f():\n    return 0\n"

    def judged(number, outcomes):
        texts = [f"{passing if outcome == 'passed' else failing}# {i}\n" for i, outcome in enumerate(outcomes)]
        verdicts = [
            {"outcome": outcome, "passed": int(outcome == "passed"), "total": 1, "duration_s": 0.1, "detail": ""}
            for outcome in (*outcomes, "passed")
        ]
        return {
            "problem_id": f"p/{number}",
            "prompt": "Write f.",
            "tests": [{"kind": "assert", "code": "assert f() == 1"}],
            "completions": [*texts, passing],
            "raw_completions": [*texts, passing],
            "sources": ["student"] * len(texts) + ["reference"],
            "models": ["m"] * len(texts) + ["reference"],
            "verdicts": verdicts,
        }

    rows = [judged(0, ["failed", "failed"]), judged(1, ["passed", "failed"]), judged(2, ["passed", "passed"])]
    (tmp_path / "train.judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment.choose_own_groups(tmp_path, 2)
    (group,) = experiment.rows_to_learn_from("own-rrhf", tmp_path)
    assert group["problem_id"] == "p/1"
    assert group["sources"] == ["student", "student"]
    (learnt,) = experiment.rows_to_learn_from("own-rejection", tmp_path)
    assert learnt["completions"] == [f"{passing}# 0\n"]


@pytest.fixture
def recorded_jobs(experiment, monkeypatch):
    """The jobs that a method starts; validation prefers a learning rate of 1e-3."""
    jobs = []

    def start(job):
        jobs.append((job["learning_rate"], job["seed"], job["is_final"]))
        score = 0.3 if job["learning_rate"] == 1e-3 else 0.1
        return {**job, "validation": {"pass@k": {"pass@1": {"mean": score}}}}

    monkeypatch.setattr(experiment, "start", start)
    return jobs


PRESET = {
    "candidates": 2,
    "epochs": 1,
    "learning_rates": [1e-4, 1e-3, 1e-2],
    "pair_learning_rates": [1e-6],
    "seeds": [0, 1],
    "test_samples": 4,
}


def test_the_learning_rate_is_chosen_on_the_validation_problems(experiment, recorded_jobs, tmp_path):
    options = type("Options", (), {"model": "m", "output": tmp_path})
    runs = experiment.run_method("rrtf", options, PRESET)
    assert recorded_jobs == [(1e-4, 0, False), (1e-3, 0, False), (1e-2, 0, False), (1e-3, 0, True), (1e-3, 1, True)]
    assert [run["seed"] for run in runs] == [0, 1]
    assert {run["model"] for run in runs} == {str(tmp_path / "base_model")}
    assert json.loads((tmp_path / "rrtf.json").read_text()) == {"learning_rate": 1e-3}


def test_other_losses_train_at_the_learning_rate_of_rrtf_and_pairs_at_their_own(experiment, recorded_jobs, tmp_path):
    (tmp_path / "rrtf.json").write_text(json.dumps({"learning_rate": 1e-2}))
    options = type("Options", (), {"model": "m", "output": tmp_path})
    experiment.run_method("rrtf-lambda", options, {**PRESET, "seeds": [0]})
    experiment.run_method("dpo", options, {**PRESET, "seeds": [0]})
    experiment.run_method("sft-high-rate", options, {**PRESET, "seeds": [0]})
    assert recorded_jobs == [(1e-2, 0, True), (1e-6, 0, True), (1e-4, 0, True)]


def test_the_published_model_is_only_evaluated(experiment, recorded_jobs, tmp_path):
    options = type("Options", (), {"model": "m", "output": tmp_path})
    (run,) = experiment.run_method("published", options, PRESET)
    assert recorded_jobs == [(None, 0, True)]
    assert run["model"] == "m"
