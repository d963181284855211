"""The `evolve` stage with a scripted teacher and the real judge: lineage, eliminations, tests, resuming."""

from __future__ import annotations

import json
import re

import pytest

from trl_rrtf import ConfigError, JudgeConfig, OutputError, RowError, load_problems
from trl_rrtf.cli import main
from trl_rrtf.evolving.config import EvolveArguments, EvolveConfig, TeacherConfig
from trl_rrtf.evolving.stage import run_evolve

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

    def sample(self, prompts, draws):
        seeds = draws.seeds
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


def evolve(seeds, output, sampler, teacher=TEACHER, judging=None, **options):
    arguments = EvolveArguments(seeds, str(output))
    return run_evolve(arguments, EvolveConfig(**{"rounds": 2, **options}), teacher, judging or JudgeConfig(), sampler)


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
    kept = json.loads((tmp_path / "e.jsonl.summary.json").read_text())
    assert kept["survivors_by_round"] == [2, 2]
    assert kept["eliminated"] == {"refused": 1, "too_few_tests": 2, "kills_no_mutant": 1}
    assert [entry["reason"] for entry in kept["dropped"]] == ["refused", "too_few_tests", "kills_no_mutant", "too_few_tests"]
    assert summary.to_json() == kept
    assert summary.table()["survivors of round 2"] == 2
    assert not any("problem_id" in str(value) for value in summary.table().values()), "the list of the dropped is for the file"
    assert {path.name for path in tmp_path.iterdir()} == {
        "seeds.jsonl",
        "e.jsonl",
        "e.jsonl.summary.json",
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
    for suffix in ("", ".summary.json"):
        expected = (tmp_path / f"whole.jsonl{suffix}").read_text().replace("whole.jsonl", "killed.jsonl")
        assert (tmp_path / f"killed.jsonl{suffix}").read_text() == expected
    assert len(killed.asked) + len(rest.asked) <= len(whole.asked) + 6, "at most the batch that was killed is asked again"
    done = evolve(seeds, tmp_path / "killed.jsonl", ScriptedTeacher(0))
    assert done.seeds == 6


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


def killed_once(seeds, output, **options):
    with pytest.raises(Killed):
        evolve(seeds, output, ScriptedTeacher(4), **options)


def test_a_killed_run_goes_on_with_what_decides_nothing_changed(seeds, tmp_path):
    def teacher(**changes):
        return TeacherConfig("teacher", batch_size=2, num_generations=2, engine="openai", **changes)

    evolve(seeds, tmp_path / "whole.jsonl", ScriptedTeacher(), teacher())
    killed_once(seeds, tmp_path / "killed.jsonl", teacher=teacher())
    changed = teacher(max_concurrency=2, base_url="http://elsewhere", input_price=3)
    evolve(seeds, tmp_path / "killed.jsonl", ScriptedTeacher(), changed, JudgeConfig(num_workers=1))
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"judging": JudgeConfig(memory_mb=512)}, "`memory_mb` was 1024 and is 512"),
        ({"teacher": TeacherConfig("teacher", batch_size=2, num_generations=2, top_k=5)}, "`top_k` was 0 and is 5"),
        ({"max_growth": 9.0}, "`max_growth` was 4.0 and is 9.0"),
    ],
)
def test_a_killed_run_does_not_go_on_with_what_decides_changed(seeds, tmp_path, changes, named):
    killed_once(seeds, tmp_path / "e.jsonl")
    with pytest.raises(OutputError, match=named):
        evolve(seeds, tmp_path / "e.jsonl", ScriptedTeacher(), **changes)


def test_a_model_that_changed_in_its_folder_is_noticed(seeds, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    teacher = TeacherConfig(str(tmp_path / "model"), batch_size=2, num_generations=2)
    killed_once(seeds, tmp_path / "e.jsonl", teacher=teacher)
    (tmp_path / "model" / "config.json").write_text('{"other": "model"}')
    with pytest.raises(OutputError, match="`model_fingerprint` was"):
        evolve(seeds, tmp_path / "e.jsonl", ScriptedTeacher(), teacher)


def test_a_users_column_steers_nothing(tmp_path):
    """Seeds may have columns of the names that evolve uses for itself."""
    rows = [
        {"problem_id": f"own/{i}", "prompt": seed["instruction"], "tests": [], "eliminated": "by hand", "seed_id": "x"}
        for i, seed in enumerate(SEEDS, start=1)
    ]
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps({**row, "license": "mine", "other": 1}) + "\n" for row in rows))
    summary = evolve(str(path), tmp_path / "e.jsonl", ScriptedTeacher())
    assert summary.survivors_by_round == [2, 2]
    for problem in load_problems(str(tmp_path / "e.jsonl")):
        assert problem.extra.keys() == {"license", "parent_id", "seed_id", "round", "method"}
        assert problem.extra["seed_id"] in {row["problem_id"] for row in rows}


def test_evolved_problems_evolve_further_under_ids_of_their_own(seeds, tmp_path):
    evolve(seeds, tmp_path / "first.jsonl", ScriptedTeacher())
    summary = evolve(str(tmp_path / "first.jsonl"), tmp_path / "second.jsonl", ScriptedTeacher(), rounds=1)
    ids = [problem.problem_id for problem in load_problems(str(tmp_path / "second.jsonl"))]
    ids += [entry["problem_id"] for entry in summary.dropped]
    assert sorted(ids) == sorted(f"{problem.problem_id}#r1" for problem in load_problems(str(tmp_path / "first.jsonl")))


def test_what_cannot_end_well_is_refused_before_the_teacher_is_asked(seeds, tmp_path):
    teacher = ScriptedTeacher(0)
    rows = [{"problem_id": name, "prompt": "Write a function.", "tests": []} for name in ("a", "b", "a")]
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RowError, match=r"line 3, column `problem_id`: 'a' is the id of another problem too \(.*line 1\)"):
        evolve(str(tmp_path / "twice.jsonl"), tmp_path / "e.jsonl", teacher)
    rows[2]["problem_id"] = "a#r2"
    (tmp_path / "taken.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="`keep_seeds`: 'a#r2' is the id of a seed"):
        evolve(str(tmp_path / "taken.jsonl"), tmp_path / "e.jsonl", teacher, keep_seeds=True)
    with pytest.raises(ConfigError, match="`num_votes`: greedy sampling"):
        evolve(seeds, tmp_path / "e.jsonl", teacher, TeacherConfig("teacher", temperature=0, num_generations=1))
    with pytest.raises(ConfigError, match=r"`output`: .* would overwrite what `input` names"):
        run_evolve(EvolveArguments(seeds, seeds, overwrite=True), EvolveConfig(), TEACHER, JudgeConfig(), teacher)
    assert load_rows(seeds) == SEEDS


def load_rows(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def test_overwriting_removes_what_evolve_made_and_nothing_else(seeds, tmp_path):
    output = tmp_path / "e.jsonl"
    killed_once(seeds, output)
    (tmp_path / "e.jsonl.rounds" / "notes.txt").write_text("mine")
    arguments = EvolveArguments(seeds, str(output), overwrite=True)
    run_evolve(arguments, EvolveConfig(rounds=1), TEACHER, JudgeConfig(), ScriptedTeacher())
    assert [path.name for path in (tmp_path / "e.jsonl.rounds").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "options",
    [
        {"methods": ["magic"]},
        {"methods": []},
        {"methods": "constraint"},
        {"rounds": 0},
        {"rounds": "two"},
        {"min_tests": 9},
        {"max_similarity": 0},
        {"max_similarity": float("nan")},
        {"max_growth": 1},
        {"keep_seeds": "no"},
    ],
)
def test_settings_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match="expected"):
        EvolveConfig(**options)


def test_a_limit_that_is_no_number_is_refused():
    assert EvolveArguments("a", "b.jsonl", limit="6").limit == 6
    for limit in ("six", 0, 1.5):
        with pytest.raises(ConfigError, match="`limit`: expected"):
            EvolveArguments("a", "b.jsonl", limit=limit)


def test_options_that_would_do_nothing_are_refused():
    with pytest.raises(ConfigError, match="`num_votes`: no tests are written without `synthesize_tests`"):
        EvolveConfig(synthesize_tests=False, num_votes=1)
    for options in ({"prompt_style": "paper"}, {"include_reference": True}):
        with pytest.raises(ConfigError, match="a teacher that evolves problems writes no candidates"):
            TeacherConfig("teacher", **options)
    with pytest.raises(ConfigError, match="`source`: expected one of teacher"):
        TeacherConfig("teacher", source="student")
