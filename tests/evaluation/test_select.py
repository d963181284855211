"""The `select` stage: what it chooses, what it never sees, what the choice is worth; real judge, tiny model, real files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trl_rrtf import (
    CompareArguments,
    ConfigError,
    Evaluation,
    Judge,
    JudgeArguments,
    JudgeConfig,
    JudgeError,
    LoadError,
    OutputError,
    RowError,
    SelectArguments,
    SelectConfig,
    SelectSummary,
    run_compare,
    run_judge,
    run_select,
)
from trl_rrtf.cli import main
from trl_rrtf.evaluation.statistics import mean_with_interval, paired_difference

# Programs of `f(n)`, which returns n + 1: right ones, one that passes the public test (n = 1) alone, wrong and broken ones.
RIGHT = ["def f(n):\n    return n + 1\n", "def f(n):\n    return 1 + n\n"]
NEARLY, WRONG, BROKEN = "def f(n):\n    return 2\n", "def f(n):\n    return n\n", "def f(n):\n    return x\n"
HIDDEN = 987_654
BY_BOTH = SelectConfig(by=["public_tests", "agreement"], public_tests=1, num_inputs=6)


def group(name, programs, sources=None, **columns):
    tests = [f"assert f(1) == {2}", f"assert f({HIDDEN}) == {HIDDEN + 1}"]
    return {
        "problem_id": name,
        "prompt": "Write f.",
        "entry_point": "f",
        "tests": [{"kind": "assert", "code": code} for code in tests],
        "reference_solution": RIGHT[0],
        "completions": programs,
        "sources": sources or ["student"] * len(programs),
        "models": ["m"] * len(programs),
        **columns,
    }


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Five problems, judged: (n, passed) = (4, 1), (4, 2), (4, 0), (2, 1), (3, 3)."""
    folder = tmp_path_factory.mktemp("select")
    rows = [
        group("a", [WRONG, NEARLY, RIGHT[0], BROKEN]),
        group("b", [WRONG, RIGHT[0], NEARLY, RIGHT[1]]),
        group("c", [BROKEN, WRONG, WRONG, BROKEN]),
        group("d", [RIGHT[0], WRONG, NEARLY], ["student", "student", "reference"]),
        group("e", [RIGHT[1], RIGHT[1], RIGHT[1]]),
    ]
    path = str(folder / "j.jsonl")
    run_judge(JudgeArguments(write(folder / "c.jsonl", rows), path), JudgeConfig(num_workers=2))
    return path


def test_what_is_chosen_and_what_it_is_worth_by_hand(judged, tmp_path):
    arguments = SelectArguments(judged, str(tmp_path / "s.jsonl"), str(tmp_path / "e.json"))
    summary = run_select(arguments, BY_BOTH)
    rows = read(tmp_path / "s.jsonl")
    # a: two pass the public test, each alone in its cluster. b: two right programs agree. c: the first of the wrong ones.
    assert [row["completions"] for row in rows] == [[NEARLY], [RIGHT[0]], [WRONG], [RIGHT[0]], [RIGHT[1]]]
    assert [row["selection"]["index"] for row in rows] == [1, 1, 1, 0, 0]
    assert [row["selection"]["tied"] for row in rows] == [2, 2, 1, 1, 1]
    assert [row["selection"]["narrowed_by"] for row in rows] == [
        ["public_tests"],
        ["public_tests", "agreement"],
        ["agreement"],
        ["public_tests"],
        [],
    ]
    # A signal is asked of what the earlier ones left, while that is more than one program.
    assert rows[1]["selection"]["signals"] == {"public_tests": [0, 1, 1, 1], "agreement": [None, 2, 1, 2]}
    assert rows[3]["selection"]["signals"]["agreement"] is None
    assert rows[4]["selection"]["signals"] == {"public_tests": None, "agreement": None}
    assert rows[3]["selection"]["signals"]["public_tests"] == [1, 0, None]  # the reference passes too, and does not count
    assert all(len(row["models"]) == len(row["sources"]) == len(row["verdicts"]) == 1 for row in rows)

    chosen, one = [0, 1, 0, 1, 1], [1 / 4, 2 / 4, 0, 1 / 2, 1]
    best = summary.best_of_n
    assert best.select == mean_with_interval(chosen)
    assert best.one_sample == mean_with_interval(one)
    assert best.difference == paired_difference(one, chosen)
    assert best.any.mean == 4 / 5
    table = summary.table()
    assert table["candidates"] == "17 (2 to 4 of a problem: n differs)"
    assert {"select@2-4", "pass@1 of one sample", "difference", "pass@2-4 (any)"} <= table.keys()
    assert (table["references (never chosen)"], table["ties broken by order"]) == (1, "2 problems")
    assert (table["narrowed by public_tests"], table["narrowed by agreement"]) == ("3 problems", "2 problems")
    assert table["seen by the choice"] == "5 of 10 tests are public: to pass them is a part of passing all"

    evaluation = Evaluation.load(tmp_path / "e.json", "evaluation")
    assert evaluation.pass_at_k == {1: best.select}
    assert [(problem.count.n, problem.count.c) for problem in evaluation.problems] == [(1, passes) for passes in chosen]
    assert evaluation.settings["model"] == "m, select@2-4 by public_tests, agreement"
    assert evaluation.outcomes["passed"] == 3
    assert evaluation.best_of_n["difference"]["mean"] == pytest.approx(0.6 - 0.45)


def test_the_summary_is_kept_and_nothing_is_done_twice(judged, tmp_path, monkeypatch):
    arguments = SelectArguments(judged, str(tmp_path / "s.jsonl"), str(tmp_path / "e.json"))
    first = run_select(arguments, BY_BOTH)
    (tmp_path / "e.json").unlink()
    monkeypatch.setattr(Judge, "judge_many", lambda *_: pytest.fail("a program was run"))
    assert run_select(arguments, BY_BOTH) == first
    assert (tmp_path / "e.json").exists()
    assert isinstance(first, SelectSummary)


def test_an_interrupted_run_goes_on_and_gives_the_same_rows(judged, tmp_path):
    arguments = SelectArguments(judged, str(tmp_path / "s.jsonl"))
    first = run_select(arguments, BY_BOTH)
    whole = (tmp_path / "s.jsonl").read_bytes()
    (tmp_path / "s.jsonl").unlink()
    (tmp_path / "s.jsonl.partial").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]) + b'{"torn')
    assert run_select(arguments, BY_BOTH, JudgeConfig(num_workers=1)) == first
    assert (tmp_path / "s.jsonl").read_bytes() == whole
    with pytest.raises(OutputError, match=r"`select` was .*agreement"):
        run_select(arguments, replace(BY_BOTH, by=["public_tests"], num_inputs=16))


def test_the_choice_never_sees_a_hidden_test(judged, tmp_path, monkeypatch):
    """Neither in the problems that programs meet, nor in the inputs that are made."""
    seen, inputs = [], []
    judge_many, observe_many = Judge.judge_many, Judge.observe_many

    def spy_on_judging(judge, items):
        items = list(items)
        seen.extend(problem for problem, _ in items)
        return judge_many(judge, items)

    def spy_on_observing(judge, items, **options):
        items = list(items)
        seen.extend(problem for problem, _, _ in items)
        inputs.extend(text for _, _, texts in items for text in texts)
        return observe_many(judge, items, **options)

    monkeypatch.setattr(Judge, "judge_many", spy_on_judging)
    monkeypatch.setattr(Judge, "observe_many", spy_on_observing)
    run_select(SelectArguments(judged, str(tmp_path / "s.jsonl")), BY_BOTH)
    assert seen
    assert inputs
    assert {len(problem.tests) for problem in seen} == {1}
    assert str(HIDDEN) not in repr(seen)
    assert not any(str(HIDDEN) in text for text in inputs)
    assert not any(problem.reference_solution for problem in seen)


def test_verdicts_on_hidden_tests_do_not_change_the_choice(judged, tmp_path):
    rows = read(judged)
    for row in rows:
        for verdict in row["verdicts"]:
            verdict.update(outcome="failed", passed=0, total=2)
    failed = write(tmp_path / "failed.jsonl", rows)
    for path, name in ((judged, "s"), (failed, "f")):
        run_select(SelectArguments(path, str(tmp_path / f"{name}.jsonl")), BY_BOTH)
    chosen = [[row["completions"] for row in read(tmp_path / f"{name}.jsonl")] for name in "sf"]
    assert chosen[0] == chosen[1]


def test_candidates_without_verdicts_are_judged_for_an_evaluation_alone(judged, tmp_path):
    rows = [{name: value for name, value in row.items() if name != "verdicts"} for row in read(judged)]
    candidates = write(tmp_path / "c.jsonl", rows)
    summary = run_select(SelectArguments(candidates, str(tmp_path / "s.jsonl")), BY_BOTH)
    assert summary.best_of_n is None
    assert "give `--evaluation E.json`" in summary.table()["select@n"]
    assert not list(tmp_path.glob("*.judged.jsonl"))
    measured = run_select(SelectArguments(candidates, str(tmp_path / "t.jsonl"), str(tmp_path / "t.json")), BY_BOTH)
    expected = run_select(SelectArguments(judged, str(tmp_path / "u.jsonl")), BY_BOTH)
    assert measured.best_of_n == expected.best_of_n
    assert len(read(tmp_path / "t.jsonl.judged.jsonl")) == 5
    assert json.loads((tmp_path / "t.json").read_text())["judge"]["timeout"] == 5


def test_a_candidate_that_could_not_be_judged_is_left_out(judged, tmp_path):
    rows = read(judged)
    for i in (1, 3):  # of problem b, the right ones
        rows[1]["verdicts"][i] = {"outcome": "infrastructure", "passed": 0, "total": 0}
    summary = run_select(SelectArguments(write(tmp_path / "j.jsonl", rows), str(tmp_path / "s.jsonl")), BY_BOTH)
    assert (summary.left_out, summary.candidates) == (2, 15)
    selection = read(tmp_path / "s.jsonl")[1]["selection"]
    assert (selection["index"], selection["of"], selection["left_out"], selection["passed"]) == (2, 2, 2, 0)
    assert selection["signals"]["public_tests"] == [0, None, 1, None]
    for verdict in rows[1]["verdicts"]:
        verdict.update(outcome="infrastructure", passed=0, total=0)
    with pytest.raises(JudgeError, match="line 2: no candidate of problem b could be judged"):
        run_select(SelectArguments(write(tmp_path / "j.jsonl", rows), str(tmp_path / "t.jsonl")), BY_BOTH)


def test_repairs_can_be_chosen_and_are_no_samples(judged, tmp_path):
    rows = read(judged)[:2]
    rows[0]["repair_of"] = [None, None, 0, None]  # the right one
    summary = run_select(
        SelectArguments(write(tmp_path / "j.jsonl", rows), str(tmp_path / "s.jsonl")),
        replace(BY_BOTH, by=["public_tests"], num_inputs=16),
    )
    assert (summary.candidates, summary.repairs) == (8, 1)
    assert summary.best_of_n.one_sample.mean == (0 / 3 + 2 / 4) / 2
    assert summary.best_of_n.any.mean == 1
    rows[0]["verdicts"][1] = {"outcome": "infrastructure", "passed": 0, "total": 0}
    run_select(SelectArguments(write(tmp_path / "k.jsonl", rows), str(tmp_path / "t.jsonl")), BY_BOTH)
    [chosen, _] = read(tmp_path / "t.jsonl")
    assert (chosen["completions"], chosen["selection"]["index"], chosen["selection"]["repair_of"]) == ([RIGHT[0]], 2, 0)
    assert not chosen.get("repair_of")


def test_a_signal_that_says_nothing_of_a_problem_is_counted(judged, tmp_path):
    rows = read(judged)
    rows[0]["public_tests"] = 0
    summary = run_select(
        SelectArguments(write(tmp_path / "j.jsonl", rows), str(tmp_path / "s.jsonl")),
        SelectConfig(by=["public_tests"], public_tests=1),
    )
    assert summary.silent == {"public_tests": 1}
    assert summary.table()["problems without public tests"] == 1
    assert read(tmp_path / "s.jsonl")[0]["selection"]["index"] == 0
    for row in rows:
        row["public_tests"] = 0
    path = write(tmp_path / "none.jsonl", rows)
    with pytest.raises(ConfigError, match="`by`: no problem has public tests"):
        run_select(SelectArguments(path, str(tmp_path / "t.jsonl")), BY_BOTH)
    with pytest.raises(ConfigError, match="`by`: `agreement` finds nothing to make inputs from"):
        run_select(SelectArguments(path, str(tmp_path / "t.jsonl")), SelectConfig(by=["agreement"]))


def test_log_probabilities_are_those_of_the_model_or_of_the_column(judged, tiny_model_dir, tmp_path):
    by_model = SelectConfig(by=["log_probability"], model=str(tiny_model_dir), prompt_style="paper")
    rows = read(judged)
    for row in rows:
        row["teacher_log_probs"] = [-9.0 + i for i in range(len(row["completions"]))]
    path = write(tmp_path / "j.jsonl", rows)
    run_select(SelectArguments(path, str(tmp_path / "m.jsonl")), by_model)
    selected = read(tmp_path / "m.jsonl")
    for row, before in zip(selected[:4], rows[:4], strict=True):  # the last has one program alone
        values = row["selection"]["signals"]["log_probability"]
        known = [value for value in values if value is not None]
        assert known[0] == pytest.approx(-6, abs=3)
        assert row["selection"]["index"] == values.index(max(known))
        assert row["teacher_log_probs"] == [before["teacher_log_probs"][row["selection"]["index"]]]  # a teacher's, still
    assert not list(tmp_path.glob("m.jsonl.log_probs*"))
    run_select(SelectArguments(path, str(tmp_path / "c.jsonl")), SelectConfig(by=["log_probability"]))
    assert [row["selection"]["index"] for row in read(tmp_path / "c.jsonl")] == [3, 3, 3, 1, 0]
    with pytest.raises(RowError, match=r"line 1, column `teacher_log_probs\[0\]`: it is missing"):
        run_select(SelectArguments(judged, str(tmp_path / "n.jsonl")), SelectConfig(by=["log_probability"]))


def test_comparing_one_sample_with_the_choice(judged, tmp_path):
    by_public = SelectConfig(by=["public_tests"], public_tests=1)
    for name, config in (("a", by_public), ("b", BY_BOTH)):
        run_select(SelectArguments(judged, str(tmp_path / f"{name}.jsonl"), str(tmp_path / f"{name}.json")), config)
    difference = run_compare(CompareArguments(str(tmp_path / "a.json"), str(tmp_path / "b.json")))
    assert difference.different_settings == {"best of n": ("chosen by public_tests", "chosen by public_tests, agreement")}
    # With the evaluation of all candidates, as `evaluate` writes it: the interval is that of `difference`.
    evaluation = json.loads((tmp_path / "b.json").read_text())
    del evaluation["best_of_n"]
    counts = [(4, 1), (4, 2), (4, 0), (2, 1), (3, 3)]
    evaluation["problems"] = [{"problem_id": name, "n": n, "c": c} for name, (n, c) in zip("abcde", counts, strict=True)]
    evaluation["settings"] = {"model": "m", "num_generations": 4, "temperature": 0.8}
    (tmp_path / "all.json").write_text(json.dumps(evaluation))
    compared = run_compare(CompareArguments(str(tmp_path / "all.json"), str(tmp_path / "b.json")))
    best = Evaluation.load(tmp_path / "b.json", "b").best_of_n
    assert vars(compared.pass_at_k[1].difference) == best["difference"]
    assert compared.different_settings == {"best of n": ("one sample", "chosen by public_tests, agreement")}
    assert compared.table()["not a fair comparison"] == "best of n: one sample and chosen by public_tests, agreement"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": []}, "`by`: expected signals, each once"),
        ({"by": ["agreement", "agreement"]}, "`by`: expected signals, each once"),
        ({"by": ["luck"]}, "`by`: expected some of public_tests, agreement, log_probability, reward_model, got luck"),
        ({"by": ["reward_model"]}, "`reward_model`: `by` names it, and there is none"),
        ({"by": ["agreement"], "model": "m"}, "`model`: it needs `log_probability` in `by`"),
        ({"by": ["agreement"], "reward_model": "m"}, "`reward_model`: it needs `reward_model` in `by`"),
        ({"by": ["public_tests"], "num_inputs": 3}, "`num_inputs`: it needs `agreement` in `by`"),
        ({"by": ["public_tests"], "seed": 3}, "`seed`: it needs `agreement` in `by`"),
        ({"by": ["log_probability"], "public_tests": 1}, "`public_tests`: it needs `public_tests` or `agreement` in `by`"),
        ({"by": ["log_probability"], "batch_size": 1}, "`batch_size`: it needs a model"),
        ({"by": ["agreement"], "prompt_style": "paper"}, "`prompt_style`: it needs a model"),
    ],
)
def test_options_that_the_signals_do_not_use_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SelectConfig(**options)


def test_limits_of_the_judge_that_nothing_needs_are_refused(judged, tmp_path):
    rows = [{**row, "teacher_log_probs": [-1.0] * len(row["completions"])} for row in read(judged)]
    arguments = SelectArguments(write(tmp_path / "j.jsonl", rows), str(tmp_path / "s.jsonl"))
    with pytest.raises(ConfigError, match="`timeout`: nothing here needs it"):
        run_select(arguments, SelectConfig(by=["log_probability"]), JudgeConfig(timeout=1))
    with pytest.raises(ConfigError, match="`number_tolerance`: nothing here needs it: it is for `public_tests` or `agreement`"):
        run_select(arguments, SelectConfig(by=["log_probability"]), JudgeConfig(number_tolerance=0))
    with pytest.raises(ConfigError, match="`stop_at_first_failure`: nothing here needs it: it is for `public_tests` in `by`"):
        run_select(arguments, SelectConfig(by=["agreement"], public_tests=1), JudgeConfig(stop_at_first_failure=True))


def test_what_is_wrong_is_found_before_anything_runs(judged, tmp_path, monkeypatch):
    monkeypatch.setattr("trl_rrtf.evaluation.select.Judge", lambda _: pytest.fail("a judge was started"))
    output = str(tmp_path / "s.jsonl")
    with pytest.raises(ConfigError, match=r"`output`: .* what `input` names"):
        run_select(SelectArguments(judged, judged), BY_BOTH)
    with pytest.raises(ConfigError, match=r"`evaluation`: expected a name that ends in \.json"):
        SelectArguments(judged, output, "e.txt")
    with pytest.raises(LoadError, match="`model`: there is no model folder"):
        run_select(SelectArguments(judged, output), SelectConfig(by=["log_probability"], model="/no/model"))
    with pytest.raises(LoadError, match="`reward_model`: there is no model folder"):
        run_select(SelectArguments(judged, output), SelectConfig(by=["reward_model"], reward_model="/no/model"))
    rows = read(judged)
    only_references = write(tmp_path / "r.jsonl", [rows[0], {**rows[3], "sources": ["reference"] * 3}])
    with pytest.raises(RowError, match="line 2, column `completions`: there is no candidate to choose from"):
        run_select(SelectArguments(only_references, output), BY_BOTH)
    with pytest.raises(RowError, match="problem 'a', column `public_tests`: says that 7 tests are public"):
        run_select(SelectArguments(write(tmp_path / "p.jsonl", [{**rows[0], "public_tests": 7}]), output), BY_BOTH)
    (tmp_path / "mine.json").write_text('{"pass@k": {}, "problems": [], "settings": {"model": "an evaluation"}}')
    with pytest.raises(OutputError, match="is no evaluation of `trl-rrtf select`"):
        run_select(SelectArguments(judged, output, str(tmp_path / "mine.json"), overwrite=True), BY_BOTH)
    assert "an evaluation" in (tmp_path / "mine.json").read_text()


def test_another_choice_does_not_replace_an_evaluation_unasked(judged, tmp_path):
    evaluation = str(tmp_path / "e.json")
    run_select(SelectArguments(judged, str(tmp_path / "s.jsonl"), evaluation), BY_BOTH)
    other = SelectConfig(by=["public_tests"], public_tests=1)
    with pytest.raises(OutputError, match="`select` was"):
        run_select(SelectArguments(judged, str(tmp_path / "t.jsonl"), evaluation), other)
    run_select(SelectArguments(judged, str(tmp_path / "t.jsonl"), evaluation, overwrite=True), other)
    assert Evaluation.load(evaluation, "evaluation").settings["select"]["by"] == ["public_tests"]


def test_from_the_command_line(judged, tmp_path, capsys):
    files = ["--input", judged, "--output", str(tmp_path / "s.parquet"), "--evaluation", str(tmp_path / "e.json")]
    assert main(["select", *files, "--by", "agreement", "public_tests", "--public_tests", "1", "--num_workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("select@2-4", "pass@1 of one sample", "pass@2-4 (any)", "ties broken by order"))
    assert main(["select", "--input", judged, "--output", str(tmp_path / "t.jsonl"), "--by", "agreement", "--model", "m"]) == 1
    assert "`model`: it needs `log_probability` in `by`" in capsys.readouterr().err
