"""Verdicts to scores: the paper's order, its tie rule and its filter."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from trl_rrtf import ConfigError, JudgedGroup, Outcome, RankConfig, RankedGroup, RowError, UnitTest, Verdict, rank_group
from trl_rrtf.errors import OutputError
from trl_rrtf.ranking import RankArguments, RankSummary, run_rank, score
from trl_rrtf.ranking.card import PLOTS
from trl_rrtf.rows.files import read_rows
from trl_rrtf.rows.records import Candidate

TESTS = [UnitTest(kind="assert", code="assert f() == 1")]
RANKS = [Outcome.COMPILE_ERROR, Outcome.RUNTIME_ERROR, Outcome.FAILED, Outcome.PARTIAL, Outcome.PASSED]


def verdict(outcome, passed=1, total=2):
    return Verdict(outcome=outcome, passed=passed, total=total)


COUNTS = {Outcome.PARTIAL: (1, 2), Outcome.PASSED: (2, 2)}
"""Tests passed and their number, by outcome."""


def judged(*candidates, problem_id="p/1"):
    """Candidates as (program, source, outcome)."""
    return JudgedGroup(
        problem_id=problem_id,
        prompt="Write f.",
        tests=TESTS,
        candidates=[
            Candidate(program=program, source=source, model="m", verdict=verdict(outcome, *COUNTS.get(outcome, (0, 2))))
            for program, source, outcome in candidates
        ],
    )


def completions(ranked):
    return [candidate.completion for candidate in ranked.candidates]


def scores(ranked):
    return [candidate.score for candidate in ranked.candidates]


def write_rows(path, *groups):
    path.write_text("".join(json.dumps(group.to_row()) + "\n" for group in groups))
    return str(path)


@pytest.mark.parametrize("config", [RankConfig(), RankConfig(failed_score=1.9, teacher_bonus=0.05, partial_credit=0.5)])
def test_scores_follow_the_outcomes_whatever_the_source(config):
    for source, other in (("student", "student"), ("teacher", "student"), ("student", "teacher"), ("reference", "student")):
        for low, high in pairwise(RANKS):
            assert score(verdict(low), source, config) < score(verdict(high), other, config)


def test_a_tie_goes_to_the_teacher():
    for outcome in RANKS:
        student = score(verdict(outcome), "student", RankConfig())
        assert score(verdict(outcome), "teacher", RankConfig()) == score(verdict(outcome), "reference", RankConfig())
        assert score(verdict(outcome), "teacher", RankConfig()) == student + 0.25


def test_the_papers_scores():
    expected = [0.0, 1.0, 1.5, 2.0, 3.0]
    assert [score(verdict(outcome), "student", RankConfig()) for outcome in RANKS] == expected
    credited = RankConfig(partial_credit=0.4)
    assert score(verdict(Outcome.PARTIAL, passed=3, total=4), "student", credited) == pytest.approx(2.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_bonus": 0.0}, "`teacher_bonus`: expected more than 0"),
        ({"teacher_bonus": 0.5}, r"less than the smallest gap between outcomes \(0\.5\)"),
        ({"teacher_bonus": 0.25, "partial_credit": 0.8}, r"smallest gap between outcomes \(0\.2\)"),
        ({"failed_score": 2.5}, "`failed_score`: expected at least 1 and at most 2, got 2.5"),
        ({"partial_credit": 1.0}, "`partial_credit`: expected at least 0 and below 1, got 1"),
        ({"prompt_style": "haiku"}, "`prompt_style`: expected one of chat, paper, completion"),
    ],
)
def test_numbers_that_would_overturn_a_verdict_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RankConfig(**options)


def test_failures_of_the_judge_are_left_out_never_scored():
    group = judged(
        ("a", "reference", Outcome.PASSED), ("b", "student", Outcome.INFRASTRUCTURE), ("c", "student", Outcome.FAILED)
    )
    ranked, fate = rank_group(group, RankConfig())
    assert fate == "kept"
    assert [completion[0]["content"] for completion in completions(ranked)] == ["a", "c"]
    with pytest.raises(ConfigError, match="says nothing about the candidate"):
        score(verdict(Outcome.INFRASTRUCTURE), "student", RankConfig())


def test_the_papers_filter_drops_a_teacher_below_a_student():
    group = judged(("a", "teacher", Outcome.PARTIAL), ("b", "student", Outcome.PASSED))
    assert rank_group(group, RankConfig()) == (None, "dropped: teacher below student")
    ranked, _ = rank_group(group, RankConfig(drop_teacher_below_student=False))
    assert scores(ranked) == [2.25, 3.0]


def test_equal_programs_count_once_and_the_teachers_stays():
    group = judged(("a", "student", Outcome.PASSED), ("a", "reference", Outcome.PASSED), ("b", "student", Outcome.FAILED))
    ranked, _ = rank_group(group, RankConfig())
    assert [candidate.source for candidate in ranked.candidates] == ["reference", "student"]
    same = judged(("a", "student", Outcome.PASSED), ("a", "student", Outcome.PASSED))
    assert rank_group(same, RankConfig()) == (None, "dropped: fewer than two different candidates")


def test_the_prompt_is_rendered_as_the_model_will_meet_it():
    group = judged(("a", "reference", Outcome.PASSED), ("b", "student", Outcome.FAILED))
    paper, _ = rank_group(group, RankConfig(prompt_style="paper"))
    assert paper.prompt == '"""\nWrite f.\n"""\n'
    assert completions(paper) == ["a", "b"]
    chat, _ = rank_group(group, RankConfig(prompt_style="chat"))
    assert chat.prompt[0]["role"] == "user"
    assert completions(chat)[0] == [{"role": "assistant", "content": "a"}]


def test_the_stage_writes_ranked_groups_and_counts(tmp_path):
    groups = [
        judged(("a", "reference", Outcome.PASSED), ("b", "student", Outcome.FAILED), ("c", "student", Outcome.PARTIAL)),
        judged(("a", "teacher", Outcome.FAILED), ("b", "student", Outcome.PASSED), problem_id="p/2"),
    ]
    arguments = RankArguments(input=write_rows(tmp_path / "judged.jsonl", *groups), output=str(tmp_path / "ranked.jsonl"))
    summary = run_rank(arguments, RankConfig())
    (ranked,) = read_rows(tmp_path / "ranked.jsonl", RankedGroup)
    assert scores(ranked) == [3.25, 1.5, 2.0]
    row = json.loads((tmp_path / "ranked.jsonl").read_text())
    assert (row["models"], row["outcomes"]) == (["m"] * 3, ["passed", "failed", "partial"])
    assert ranked.extra["problem_id"] == "p/1"
    assert (summary.groups, summary.kept, summary.dropped) == (2, 1, {"teacher below student": 1})
    assert (summary.teacher_student_pairs, summary.groups_without_pair) == (2, 0)
    assert summary.outcomes == {"passed": 1, "failed": 1, "partial": 1}
    assert summary.table() == {
        "groups": 2,
        "kept": 1,
        "dropped: teacher below student": 1,
        "candidates by outcome": "passed 1, failed 1, partial 1",
        "teacher-student pairs": 2,
        "groups without such a pair": 0,
        "output": str(tmp_path / "ranked.jsonl"),
    }
    before = (tmp_path / "ranked.jsonl").read_bytes()
    run_rank(arguments, RankConfig())
    assert (tmp_path / "ranked.jsonl").read_bytes() == before


def test_a_bad_row_is_named_and_nothing_is_written(tmp_path):
    path = tmp_path / "judged.jsonl"
    row = judged(("a", "teacher", Outcome.PASSED), ("b", "student", Outcome.FAILED)).to_row()
    path.write_text(json.dumps({**row, "verdicts": []}) + "\n")
    with pytest.raises(RowError, match=r"judged\.jsonl, line 1, column `verdicts`"):
        run_rank(RankArguments(input=str(path), output=str(tmp_path / "ranked.jsonl")), RankConfig())
    assert list(tmp_path.iterdir()) == [path]


OF_SHARE = {0.0: Outcome.FAILED, 1.0: Outcome.PASSED}


def judged_with(shares, sources=None, seconds=None, programs=None, log_probs=None):
    """Candidates by the share of four tests that they pass."""
    number = len(shares)
    group = judged(*[(f"p{i}", "student", Outcome.FAILED) for i in range(number)])
    columns = (sources or ["student"] * number, programs or [f"p{i}" for i in range(number)], log_probs or [None] * number)
    group.candidates = [
        Candidate(
            program=program,
            source=source,
            model="m",
            teacher_log_prob=log_prob,
            verdict=Verdict(outcome=OF_SHARE.get(share, Outcome.PARTIAL), passed=int(4 * share), total=4, seconds=time),
        )
        for share, time, source, program, log_prob in zip(shares, seconds or [0.01] * number, *columns, strict=True)
    ]
    return group


def scores_of(group, **options):
    ranked, fate = rank_group(group, RankConfig(drop_teacher_below_student=False, **options))
    return scores(ranked) if ranked else fate


def test_the_faster_program_is_preferred_where_it_is_twice_as_fast():
    group = judged_with([1, 1, 1, 0.5], seconds=[0.010, 0.019, 0.045, 0.001])
    assert scores_of(group, passed_preference="run_time") == pytest.approx([3.1, 3.1, 3.0, 2.0])


def test_the_shorter_program_is_preferred_whatever_its_layout():
    programs = ["x = 1", "x   =  1  # a comment", "x = 1 + 1", "y = 2 + 2 + 2 + 2"]
    group = judged_with([1, 1, 1, 0], programs=programs)
    assert scores_of(group, passed_preference="length") == pytest.approx([3.1, 3.1, 3.0, 1.5])


def test_what_a_teacher_model_finds_likelier_is_preferred_and_the_tie_rule_stands():
    group = judged_with([1, 1, 1], ["student", "student", "reference"], log_probs=[-0.2, -0.9, -1.5])
    got = scores_of(group, passed_preference="teacher_log_prob", preference_weight=0.2)
    assert got == pytest.approx([3.2, 3.1, 3.25])
    with pytest.raises(ConfigError, match=r"add it with `trl-rrtf teacher-logprobs`"):
        scores_of(judged_with([1, 1]), passed_preference="teacher_log_prob")
    with pytest.raises(ConfigError, match="`preference_weight`: expected more than 0 and less than `teacher_bonus`"):
        RankConfig(passed_preference="length", preference_weight=0.25)


@pytest.mark.parametrize(
    ("shares", "options", "fate"),
    [
        ([1, 1, 1], {"max_student_pass_rate": 0.99}, "dropped: too easy for the student"),
        ([0, 0, 1], {"min_student_pass_rate": 0.5}, "dropped: too hard for the student"),
        ([1, 0], {"min_student_pass_rate": 0.5, "max_student_pass_rate": 0.5}, [3.0, 1.5]),
        ([0.5, 0.5], {"require_signal": True}, "dropped: all scores are equal"),
        ([0.75, 0.25], {"min_best": 0.8}, "dropped: no candidate is good enough"),
        ([1, 0.75], {"min_gap": 0.4}, "dropped: best and worst are too close"),
        ([1, 0.5, 0], {"min_best": 0.8, "min_gap": 0.4, "min_worst": 0.0}, [3.0, 2.0]),
        ([1, 0, 0], {"min_worst": 0.0}, "dropped: fewer than two different candidates"),
    ],
)
def test_group_filters(shares, options, fate):
    assert scores_of(judged_with(shares), **options) == fate


def test_the_card_counts_what_the_groups_hold(tmp_path):
    pytest.importorskip("matplotlib")
    easy = judged_with([1, 1], ["student", "student"])
    pair = judged_with([1, 0, 0.5], ["reference", "student", "student"])
    pair.problem_id, pair.extra["license"] = "p/2", "mit"
    judged_rows = write_rows(tmp_path / "j.jsonl", easy, pair)
    (tmp_path / "j.jsonl.settings.json").write_text(json.dumps({"stage": "judge", "timeout": 7}))
    arguments = RankArguments(judged_rows, str(tmp_path / "r.jsonl"), card=str(tmp_path / "card"), license="apache-2.0")
    first = run_rank(arguments, RankConfig(max_student_pass_rate=0.9))
    card = (tmp_path / "card" / "README.md").read_text()
    for line in (
        "license: apache-2.0",
        "| groups | 1 |",
        "| source | failed | partial | passed |",
        "| reference | 0 | 0 | 1 |",
        "| student | 1 | 1 | 0 |",
        "| problems under mit | 1 |",
        "| kept | 1 |",
        "| dropped: too easy for the student | 1 |",
        "| `timeout` | 7 |",
        "| `max_student_pass_rate` | 0.9 |",
        "![outcomes](outcomes.png)",
    ):
        assert line in card, card
    assert all((tmp_path / "card" / f"{name}.png").stat().st_size > 3000 for name in PLOTS)
    assert isinstance(first, RankSummary)
    assert run_rank(arguments, RankConfig(max_student_pass_rate=0.9)) == first, "a finished run says the same"


def test_nothing_is_left_behind_where_no_group_is_left(tmp_path):
    with pytest.raises(ConfigError, match=r"none of the 1 groups is left \(dropped: too easy for the student 1\)"):
        run_rank(
            RankArguments(write_rows(tmp_path / "j.jsonl", judged_with([1, 1])), str(tmp_path / "r.jsonl")),
            RankConfig(max_student_pass_rate=0.9),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["j.jsonl"]


def two_candidates(problem_id="p/1"):
    return judged(("a", "teacher", Outcome.PASSED), ("b", "student", Outcome.FAILED), problem_id=problem_id)


@pytest.mark.parametrize(
    ("verdict_row", "column", "what"),
    [
        ({"outcome": "passed", "passed": 9, "total": 2}, "verdicts[1]", "more passed than there are"),
        ({"outcome": "passed", "passed": 0, "total": 5}, "verdicts[1]", "passes when it passes all"),
        ({"outcome": "passed", "passed": 0, "total": 0}, "verdicts[1]", "passes when it passes all"),
        ({"outcome": "failed", "passed": 1, "total": 5}, "verdicts[1]", "is partial"),
        ({"outcome": "partial", "passed": 0, "total": 5}, "verdicts[1]", "passes at least one"),
        ({"outcome": "failed", "passed": -1, "total": 5}, "verdicts[1].passed", "0 or more, got int -1"),
        ({"outcome": "failed", "passed": 0, "total": -2}, "verdicts[1].total", "0 or more, got int -2"),
        ({"outcome": "failed", "passed": 0.5, "total": 2}, "verdicts[1].passed", "got float 0.5"),
        ({"outcome": "failed", "total": 2, "seconds": "long"}, "verdicts[1].seconds", "expected a finite number"),
        ({"outcome": "failed", "total": 2, "seconds": float("nan")}, "verdicts[1].seconds", "expected a finite number"),
    ],
)
def test_verdicts_that_contradict_themselves_are_refused(tmp_path, verdict_row, column, what):
    row = two_candidates().to_row()
    row["verdicts"][1] = verdict_row
    (tmp_path / "j.jsonl").write_text(json.dumps(two_candidates("p/0").to_row()) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(RowError) as caught:
        run_rank(RankArguments(str(tmp_path / "j.jsonl"), str(tmp_path / "r.jsonl")), RankConfig())
    assert f"j.jsonl, line 2, column `{column}`" in str(caught.value)
    assert what in str(caught.value)
    assert not (tmp_path / "r.jsonl").exists()


def test_two_groups_of_one_problem_are_refused(tmp_path):
    path = write_rows(tmp_path / "j.jsonl", two_candidates(), two_candidates("p/2"), two_candidates())
    with pytest.raises(RowError, match=r"j\.jsonl, line 3, column `problem_id`: 'p/1' is the id of another .*line 1"):
        run_rank(RankArguments(path, str(tmp_path / "r.jsonl")), RankConfig())


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("output", ["j.jsonl", "sub/../j.jsonl", "link.jsonl"])
def test_an_output_that_is_the_input_is_refused_and_nothing_is_deleted(tmp_path, output, overwrite):
    path = write_rows(tmp_path / "j.jsonl", two_candidates())
    (tmp_path / "link.jsonl").symlink_to(path)
    (tmp_path / "sub").mkdir()
    before = (tmp_path / "j.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"`output`: .*`input`"):
        run_rank(RankArguments(path, str(tmp_path / output), overwrite=overwrite), RankConfig())
    assert (tmp_path / "j.jsonl").read_bytes() == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"j.jsonl", "link.jsonl", "sub"}


def test_an_interrupted_ranking_ends_with_the_same_rows_and_summary(tmp_path):
    groups = [two_candidates(f"p/{i}") for i in range(6)]
    groups[1] = judged(("a", "teacher", Outcome.FAILED), ("b", "student", Outcome.PASSED), problem_id="p/1")
    path = write_rows(tmp_path / "j.jsonl", *groups)
    whole = run_rank(RankArguments(path, str(tmp_path / "whole.jsonl")), RankConfig())
    rows = (tmp_path / "whole.jsonl").read_text()
    arguments = RankArguments(path, str(tmp_path / "r.jsonl"))
    run_rank(arguments, RankConfig())
    (tmp_path / "r.jsonl").unlink()
    (tmp_path / "r.jsonl.partial").write_text("".join(rows.splitlines(keepends=True)[:2]) + rows[:30])
    resumed = run_rank(arguments, RankConfig())
    assert (tmp_path / "r.jsonl").read_text() == rows
    assert (resumed.kept, resumed.dropped, resumed.outcomes) == (whole.kept, whole.dropped, whole.outcomes)


def test_a_finished_ranking_computes_nothing(tmp_path, monkeypatch):
    arguments = RankArguments(write_rows(tmp_path / "j.jsonl", two_candidates()), str(tmp_path / "r.jsonl"))
    first = run_rank(arguments, RankConfig())
    monkeypatch.setattr("trl_rrtf.ranking.stage.ranked_or_reason", None)
    assert run_rank(arguments, RankConfig()) == first
    with pytest.raises(OutputError, match=r"`teacher_bonus` was 0\.25 and is 0\.1"):
        run_rank(arguments, RankConfig(teacher_bonus=0.1))


def test_a_card_replaces_its_own_and_nobody_elses(tmp_path):
    pytest.importorskip("matplotlib")
    path = write_rows(tmp_path / "j.jsonl", two_candidates())
    arguments = RankArguments(path, str(tmp_path / "r.jsonl"), card=str(tmp_path / "card"))
    run_rank(arguments, RankConfig())
    run_rank(RankArguments(path, str(tmp_path / "r2.jsonl"), card=str(tmp_path / "card"), license="mit"), RankConfig())
    assert "license: mit" in (tmp_path / "card" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", b"# My project\n"),
        ("README.md", b"---\ntags:\n- trl\n- rrtf\n---\n# A model that was trained on ranked-groups\n"),
        ("README.md", b"---\n: : not YAML [\n---\n"),
        ("README.md", b"\xff\xfe"),
        ("lengths.png", b"mine"),
    ],
)
def test_a_card_does_not_replace_what_is_not_its_own_and_says_so_before_any_work(tmp_path, name, content):
    pytest.importorskip("matplotlib")
    path = write_rows(tmp_path / "j.jsonl", two_candidates())
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"`card`: `.*{name}` would be replaced"):
        run_rank(RankArguments(path, str(tmp_path / "r.jsonl"), card=str(tmp_path / "card")), RankConfig())
    assert (tmp_path / "card" / name).read_bytes() == content
    assert not (tmp_path / "r.jsonl").exists()


def test_damaged_settings_of_the_judge_are_named_before_any_work(tmp_path):
    path = write_rows(tmp_path / "j.jsonl", two_candidates())
    (tmp_path / "j.jsonl.settings.json").write_text("{")
    with pytest.raises(OutputError, match=r"j\.jsonl\.settings\.json` is damaged .*remove it"):
        run_rank(RankArguments(path, str(tmp_path / "r.jsonl")), RankConfig())
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deduplicate": "no"}, "`deduplicate`: expected true or false, got str 'no'"),
        ({"teacher_bonus": "much"}, "`teacher_bonus`: expected a number, got str 'much'"),
        ({"passed_preference": "speed"}, "`passed_preference`: expected one of none, run_time, length, teacher_log_prob"),
        ({"min_best": 1}, "`min_best`: expected at least 0 and below 1, got 1"),
        ({"max_student_pass_rate": float("nan")}, "`max_student_pass_rate`"),
        ({"min_student_pass_rate": 0.8, "max_student_pass_rate": 0.2}, "expected 0 <= min <= max <= 1, got 0.8 and 0.2"),
    ],
)
def test_options_of_a_wrong_kind_are_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        RankConfig(**options)
    assert message in str(caught.value)
    assert RankConfig(teacher_bonus="2e-1").teacher_bonus == 0.2


def test_options_that_would_do_nothing_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="`license`: it stands in the data card, and `card` asks for none, so it would do nothing"
    ):
        RankArguments("j.jsonl", "r.jsonl", license="mit")
    with pytest.raises(ConfigError, match="`preference_weight`: `passed_preference` prefers none"):
        RankConfig(preference_weight=0.2)
