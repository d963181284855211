"""Verdicts to scores: the paper's order, its tie rule and its filter."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from trl_rrtf import ConfigError, JudgedGroup, Outcome, RankConfig, RankedGroup, RowError, UnitTest, Verdict, rank_group
from trl_rrtf.ranking import RankArguments, run_rank, score
from trl_rrtf.ranking.report import PLOTS
from trl_rrtf.row_files import read_rows

TESTS = [UnitTest(kind="assert", code="assert f() == 1")]
RANKS = [Outcome.COMPILE_ERROR, Outcome.RUNTIME_ERROR, Outcome.FAILED, Outcome.PARTIAL, Outcome.PASSED]


def verdict(outcome, passed=1, total=2):
    return Verdict(outcome=outcome, passed=passed, total=total)


def judged(*candidates):
    """Candidates as (program, source, outcome)."""
    completions, sources, outcomes = zip(*candidates, strict=True)
    return JudgedGroup(
        problem_id="p/1",
        prompt="Write f.",
        tests=TESTS,
        completions=list(completions),
        sources=list(sources),
        models=["m"] * len(candidates),
        verdicts=[verdict(outcome) for outcome in outcomes],
    )


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
        ({"failed_score": 2.5}, "`failed_score`: expected a number from 1 to 2"),
        ({"partial_credit": 1.0}, "`partial_credit`: expected a number from 0 to below 1"),
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
    assert [completion[0]["content"] for completion in ranked.completions] == ["a", "c"]
    with pytest.raises(ConfigError, match="says nothing about the candidate"):
        score(verdict(Outcome.INFRASTRUCTURE), "student", RankConfig())


def test_the_papers_filter_drops_a_teacher_below_a_student():
    group = judged(("a", "teacher", Outcome.PARTIAL), ("b", "student", Outcome.PASSED))
    assert rank_group(group, RankConfig()) == (None, "dropped: teacher below student")
    ranked, _ = rank_group(group, RankConfig(drop_teacher_below_student=False))
    assert ranked.scores == [2.25, 3.0]


def test_equal_programs_count_once_and_the_teachers_stays():
    group = judged(("a", "student", Outcome.PASSED), ("a", "reference", Outcome.PASSED), ("b", "student", Outcome.FAILED))
    ranked, _ = rank_group(group, RankConfig())
    assert ranked.sources == ["reference", "student"]
    same = judged(("a", "student", Outcome.PASSED), ("a", "student", Outcome.PASSED))
    assert rank_group(same, RankConfig()) == (None, "dropped: fewer than two different candidates")


def test_the_prompt_is_rendered_as_the_model_will_meet_it():
    group = judged(("a", "reference", Outcome.PASSED), ("b", "student", Outcome.FAILED))
    paper, _ = rank_group(group, RankConfig(prompt_style="paper"))
    assert paper.prompt == '"""\nWrite f.\n"""\n'
    assert paper.completions == ["a", "b"]
    chat, _ = rank_group(group, RankConfig(prompt_style="chat"))
    assert chat.prompt[0]["role"] == "user"
    assert chat.completions[0] == [{"role": "assistant", "content": "a"}]


def test_the_stage_writes_ranked_groups_and_counts(tmp_path):
    groups = [
        judged(("a", "reference", Outcome.PASSED), ("b", "student", Outcome.FAILED), ("c", "student", Outcome.PARTIAL)),
        judged(("a", "teacher", Outcome.FAILED), ("b", "student", Outcome.PASSED)),
    ]
    path = tmp_path / "judged.jsonl"
    path.write_text("".join(json.dumps(group.to_row()) + "\n" for group in groups))
    arguments = RankArguments(input=str(path), output=str(tmp_path / "ranked.jsonl"))
    summary = run_rank(arguments, RankConfig())
    (ranked,) = read_rows(tmp_path / "ranked.jsonl", RankedGroup)
    assert ranked.scores == [3.25, 1.5, 2.0]
    assert ranked.extra["problem_id"] == "p/1"
    assert (summary["kept"], summary["dropped: teacher below student"]) == (1, 1)
    assert summary["teacher-student pairs"] == 2
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


def judged_with(shares, sources=None, seconds=None, programs=None, log_probs=None):
    """Candidates by the share of four tests that they pass."""
    number = len(shares)
    outcomes = {0.0: Outcome.FAILED, 1.0: Outcome.PASSED}
    group = judged(
        *[
            (program, source, Outcome.PASSED)
            for program, source in zip(
                programs or [f"p{i}" for i in range(number)], sources or ["student"] * number, strict=True
            )
        ]
    )
    group.verdicts = [
        Verdict(outcome=outcomes.get(share, Outcome.PARTIAL), passed=int(4 * share), total=4, seconds=time)
        for share, time in zip(shares, seconds or [0.01] * number, strict=True)
    ]
    group.extra = {"teacher_log_probs": log_probs} if log_probs else {}
    return group


def scores_of(group, **options):
    ranked, fate = rank_group(group, RankConfig(drop_teacher_below_student=False, **options))
    return ranked.scores if ranked else fate


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
    with pytest.raises(ConfigError, match=r"add it with `trl-rrtf score`"):
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


def test_the_report_counts_what_the_groups_hold(tmp_path):
    pytest.importorskip("matplotlib")
    easy = judged_with([1, 1], ["student", "student"])
    pair = judged_with([1, 0, 0.5], ["reference", "student", "student"])
    pair.extra["license"] = "mit"
    source = tmp_path / "j.jsonl"
    source.write_text("".join(json.dumps(group.to_row()) + "\n" for group in (easy, pair)))
    (tmp_path / "j.jsonl.settings.json").write_text(json.dumps({"stage": "judge", "timeout": 7}))
    arguments = RankArguments(str(source), str(tmp_path / "r.jsonl"), report=str(tmp_path / "report"), license="apache-2.0")
    first = run_rank(arguments, RankConfig(max_student_pass_rate=0.9))
    card = (tmp_path / "report" / "README.md").read_text()
    for line in (
        "license: apache-2.0",
        "| groups | 1 |",
        "| source | failed | partial | passed |",
        "| reference | 0 | 0 | 1 |",
        "| student | 1 | 1 | 0 |",
        "| problems under mit | 1 |",
        "| dropped: too easy for the student | 1 |",
        "| `timeout` | 7 |",
        "| `max_student_pass_rate` | 0.9 |",
        "![outcomes](outcomes.png)",
    ):
        assert line in card, card
    assert all((tmp_path / "report" / f"{name}.png").stat().st_size > 3000 for name in PLOTS)
    assert run_rank(arguments, RankConfig(max_student_pass_rate=0.9)) == first, "a finished run says the same"


def test_nothing_is_left_behind_where_no_group_is_left(tmp_path):
    (tmp_path / "j.jsonl").write_text(json.dumps(judged_with([1, 1]).to_row()) + "\n")
    with pytest.raises(ConfigError, match="none of the 1 groups is left"):
        run_rank(RankArguments(str(tmp_path / "j.jsonl"), str(tmp_path / "r.jsonl")), RankConfig(max_student_pass_rate=0.9))
    assert [path.name for path in tmp_path.iterdir()] == ["j.jsonl"]
