"""`skip_unusable` of the commands that read problems: each passes over the same rows, or refuses the first."""

from __future__ import annotations

import json

import pytest

from trl_rrtf import (
    EvaluateArguments,
    EvolveArguments,
    EvolveConfig,
    JudgeConfig,
    RowError,
    SampleArguments,
    SamplingConfig,
    TeacherConfig,
    run_evaluate,
    run_evolve,
    run_sample,
)


class Writes:
    """A sampler that always writes the same."""

    def __init__(self, text="def f():\n    return 1\n"):
        self.text = text

    def sample(self, prompts, draws):
        return [[self.text] * len(seeds) for seeds in draws.seeds]


@pytest.fixture
def problems(tmp_path):
    good = {
        "problem_id": "a",
        "prompt": "Return 1.",
        "entry_point": "f",
        "tests": [{"kind": "assert", "code": "assert f() == 1"}],
    }
    rows = [good, {**good, "problem_id": 7}, {**good, "problem_id": "c"}]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sample(problems, output, tiny_model_dir, **selection):
    arguments = SampleArguments(problems, str(output / "c.jsonl"), **selection)
    return run_sample(arguments, SamplingConfig(str(tiny_model_dir), num_generations=1, temperature=0.5), Writes()).problems


def evaluate(problems, output, tiny_model_dir, **selection):
    arguments = EvaluateArguments(problems, str(output / "e.json"), **selection)
    sampling = SamplingConfig(str(tiny_model_dir), num_generations=1, temperature=0.5)
    return run_evaluate(arguments, sampling, JudgeConfig(num_workers=1), Writes()).problems


def evolve(problems, output, tiny_model_dir, **selection):
    arguments = EvolveArguments(problems, str(output / "p.jsonl"), **selection)
    config = EvolveConfig(rounds=1, synthesize_tests=False, keep_seeds=True)
    teacher = Writes("Write a function that counts the vowels of a sentence, and another that sorts words by that count.")
    return run_evolve(arguments, config, TeacherConfig(str(tiny_model_dir)), JudgeConfig(), teacher).seeds


@pytest.mark.parametrize("command", [sample, evaluate, evolve])
def test_unusable_rows_are_passed_over_where_that_is_asked_for(command, problems, tmp_path, tiny_model_dir, caplog):
    with pytest.raises(RowError, match=r"line 2, column `problem_id`"):
        command(problems, tmp_path, tiny_model_dir)
    assert command(problems, tmp_path, tiny_model_dir, skip_unusable=True) == 2
    assert "1 for" in caplog.text
