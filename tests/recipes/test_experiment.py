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


@pytest.mark.parametrize("method", ["rrtf", "rrhf", "rrtf-lambda", "sft", "rejection", "dpo", "simpo"])
def test_every_method_trains_as_many_updates_on_the_same_groups(experiment, method, tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    groups = tmp_path / "groups.jsonl"
    experiment.write_rows(groups, [group(i) for i in range(16)])
    result = experiment.train(method, tiny_model_dir, groups, tmp_path / "model", 1e-3, seed=0, epochs=1)
    assert result["updates"] == 2
    assert [entry["step"] for entry in result["curve"]] == [1, 2]
    assert result["tokens"] > 0
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_the_learning_rate_is_chosen_on_the_validation_problems(experiment, tmp_path, monkeypatch):
    scores = {1e-4: 0.1, 1e-3: 0.3, 1e-2: 0.2}
    jobs = []

    def start(job):
        jobs.append((job["learning_rate"], job["seed"], job["is_final"]))
        return {**job, "validation": {"pass@k": {"pass@1": {"mean": scores[job["learning_rate"]]}}}}

    monkeypatch.setattr(experiment, "start", start)
    preset = {"candidates": 2, "epochs": 1, "learning_rates": list(scores), "seeds": [0, 1], "test_samples": 4}
    options = type("Options", (), {"model": "m", "output": tmp_path})
    runs = experiment.run_method("rrtf", options, preset)
    assert jobs == [(1e-4, 0, False), (1e-3, 0, False), (1e-2, 0, False), (1e-3, 0, True), (1e-3, 1, True)]
    assert [run["seed"] for run in runs] == [0, 1]
    assert json.loads((tmp_path / "rrtf.json").read_text()) == {"learning_rate": 1e-3}
