"""The `evolve` command with a scripted teacher and the real judge: lineage, eliminations, tests, resuming."""

from __future__ import annotations

import json
import re

import pytest

from trl_rrtf import ConfigError, JudgeConfig, load_problems
from trl_rrtf.cli import main
from trl_rrtf.evolve import EvolveArguments, EvolveConfig, TeacherConfig, run_evolve

pytest.importorskip("rapidfuzz")
SEEDS = [
    {
        "instruction": f"Write a function that adds {number} to its argument, which is a whole number.",
        "input": "",
        "output": "x",
    }
    for number in range(1, 7)
]
TEACHER = TeacherConfig("teacher", batch_size=2, num_generations=2)


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


class ScriptedTeacher:
    """Answers by what it is asked; the number of the task decides how well."""

    def __init__(self, calls=10_000):
        self.calls, self.asked = calls, []

    def sample(self, prompts, *, seeds, **settings):
        self.calls -= 1
        if self.calls < 0:
            raise Killed
        self.asked += [(prompt[0]["content"], tuple(own)) for prompt, own in zip(prompts, seeds, strict=True)]
        return [
            [self.answer(prompt[0]["content"], i) for i in range(len(own))] for prompt, own in zip(prompts, seeds, strict=True)
        ]

    def answer(self, prompt, attempt):
        number = int(re.search(r"adds (\d+)", prompt).group(1))
        if "Programming Contest Designer" in prompt:
            if number == 1:
                return "I'm sorry, I cannot do that."
            if attempt == 0:  # the second try is good
                return "Short."
            more = "and then twice over " * (1 + prompt.count("twice over"))
            return f"Write a function that adds {number} to its argument, {more}."
        program = f"def add(x):\n    return x + {number}\n"
        if "write tests" in prompt:
            right = [f"assert add({x}) == {x + number}" for x in range(6)]
            tests = {2: right[:3], 3: ["assert add(1) is not None"] * 6, 4: [*right, "assert add(7) == 0"]}.get(number, right)
            if number == 3:
                tests = [f"assert add({x}) != 'text'" for x in range(6)]
            return f"```python\n{program}```\n```python\n" + "\n".join(tests) + "\n```"
        return "def add(x):\n    return None\n" if number == 5 else f"```python\n{program}```"


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SEEDS))
    return str(path)


def evolve(seeds, output, sampler, **options):
    return run_evolve(
        EvolveArguments(seeds, str(output)), EvolveConfig(**{"rounds": 2, **options}), TEACHER, JudgeConfig(), sampler
    )


def test_problems_evolve_with_tests_that_hold(seeds, tmp_path):
    summary = evolve(seeds, tmp_path / "e.jsonl", ScriptedTeacher())
    problems = load_problems(str(tmp_path / "e.jsonl"))
    assert [(problem.extra["round"], "adds 4" in problem.prompt) for problem in problems] == [
        (1, True),
        (1, False),
        (2, True),
        (2, False),
    ]
    first, second = problems[0], problems[2]
    assert first.problem_id == f"{first.extra['seed_id']}#r1"
    assert (second.extra["parent_id"], second.extra["seed_id"]) == (first.problem_id, first.extra["seed_id"])
    assert second.problem_id == f"{first.extra['seed_id']}#r2"
    assert len(first.tests) == 6, "the wrong assertion of the teacher is gone"
    assert first.entry_point == "add"
    report = json.loads((tmp_path / "e.jsonl.report.json").read_text())
    assert report["survivors by round"] == [2, 2]
    assert report["eliminated"] == {"refused": 1, "too_few_tests": 2, "kills_no_mutant": 1}
    assert summary["survivors of round 2"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "seeds.jsonl",
        "e.jsonl",
        "e.jsonl.report.json",
        "e.jsonl.settings.json",
    }


@pytest.mark.parametrize("calls", [0, 1, 4, 9])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(seeds, tmp_path, calls):
    whole = ScriptedTeacher()
    evolve(seeds, tmp_path / "whole.jsonl", whole)
    killed = ScriptedTeacher(calls)
    with pytest.raises(Killed):
        evolve(seeds, tmp_path / "killed.jsonl", killed)
    rest = ScriptedTeacher()
    evolve(seeds, tmp_path / "killed.jsonl", rest)
    for suffix in ("", ".report.json"):
        assert (tmp_path / f"killed.jsonl{suffix}").read_bytes() == (tmp_path / f"whole.jsonl{suffix}").read_bytes()
    assert len(killed.asked) + len(rest.asked) <= len(whole.asked) + 6, "at most the batch that was killed is asked again"
    done = evolve(seeds, tmp_path / "killed.jsonl", None)
    assert done["seeds"] == 6


def test_without_tests_and_with_seeds(seeds, tmp_path):
    evolve(seeds, tmp_path / "e.jsonl", ScriptedTeacher(), rounds=1, synthesize_tests=False, keep_seeds=True)
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert len(rows) == 6 + 5
    assert all(row["tests"] == [] for row in rows)


def test_a_real_model_writes_nothing_that_survives(seeds, tiny_model_dir, tmp_path, capsys):
    """The tiny model writes noise: every evolution is eliminated, and the command says so."""
    options = ["--rounds", "1", "--limit", "2", "--max_new_tokens", "8", "--num_generations", "1"]
    command = ["evolve", "--problems", seeds, "--output", str(tmp_path / "e.jsonl"), "--model", str(tiny_model_dir), *options]
    assert main(command) == 1
    assert "no evolution survived" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [{"methods": ["magic"]}, {"methods": []}, {"rounds": 0}, {"min_tests": 9}, {"max_similarity": 0}, {"max_growth": 1}],
)
def test_settings_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match="expected"):
        EvolveConfig(**options)
