"""What each signal says of candidates: real judge, real tiny models, values by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from trl_rrtf import (
    Candidate,
    CandidateGroup,
    ConfigError,
    Judge,
    JudgeConfig,
    JudgeError,
    Problem,
    SelectArguments,
    SelectConfig,
    UnitTest,
    run_select,
)
from trl_rrtf.evaluation.choice import Choice
from trl_rrtf.evaluation.reward_model import RewardModelScorer, check_reward_model
from trl_rrtf.evaluation.signals import Agreement, Contest, Opinion, PublicTests, RewardModel

RIGHT, ALSO_RIGHT = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return float(b) + a\n"
WRONG, BROKEN = "def add(a, b):\n    return a - b\n", "def add(a, b):\n    return c\n"


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(num_workers=2)) as judge:
        yield judge


def contest(programs, tests=("assert add(1, 2) == 3", "assert add(0, 0) == 0"), public=1, **columns):
    group = CandidateGroup(
        problem_id="p",
        prompt=columns.pop("prompt", "Write add."),
        tests=[UnitTest(kind="assert", code=code) for code in tests],
        entry_point="add",
        reference_solution=RIGHT,
        extra={"public_tests": public},
        candidates=[Candidate(program=program, source="student", model="m") for program in programs],
        **columns,
    )
    return Contest.of(group, range(len(programs)), None)


def test_a_contest_holds_no_hidden_test_no_solution_and_no_verdict():
    found = contest([RIGHT])
    assert [test.code for test in found.problem.tests] == ["assert add(1, 2) == 3"]
    assert found.problem.reference_solution is None
    assert found.problem.extra == {}
    assert found.candidates[0].verdict is None


def test_public_tests_are_counted_and_hidden_ones_are_not(judge):
    programs = [WRONG, RIGHT, BROKEN, RIGHT]
    two, one, none = (contest(programs, public=public) for public in (2, 1, 0))
    opinions = PublicTests(judge).opinions([two, none, one])
    assert [opinion.values for opinion in opinions] == [[1, 2, 0, 2], [None] * 4, [0, 1, 0, 1]]
    assert [opinion.says_nothing for opinion in opinions] == [False, True, False]


def test_programs_that_give_the_same_values_agree_however_they_are_written(judge):
    config = SelectConfig(by=["agreement"], num_inputs=8)
    [opinion, silent] = Agreement(judge, config).opinions(
        [contest([WRONG, RIGHT, BROKEN, ALSO_RIGHT, BROKEN]), contest([RIGHT, WRONG], tests=["assert add(1, 2)"], public=0)]
    )
    assert opinion.values == [1, 2, 0, 2, 0]  # 3 and 3.0 are equal in a test
    assert silent.says_nothing


def test_whole_programs_agree_on_standard_input(judge):
    programs = ["print(sum(map(int, input().split())))", "print(0)", "a, b = input().split()\nprint(int(a) + int(b), '\\n')"]
    found = contest(programs)
    found.problem.tests, found.problem.entry_point = [UnitTest(kind="stdio", stdin="1 2\n", stdout="3\n")], None
    [opinion] = Agreement(judge, SelectConfig(by=["agreement"], num_inputs=4)).opinions([found])
    assert opinion.values == [2, 1, 2]


def test_what_the_judge_could_not_tell_is_no_opinion():
    """A judge that is closed fails at every program."""
    with Judge(JudgeConfig(num_workers=1)) as closed:
        pass
    found = contest([RIGHT, WRONG])
    signals = [PublicTests(closed), Agreement(closed, SelectConfig(by=["agreement"]))]
    for signal in signals:
        [opinion] = signal.opinions([found])
        assert opinion.unjudged == {0, 1}
        with pytest.raises(JudgeError, match="22 of 22 candidates could not be judged or observed, more than"):
            signal.opinions([contest([RIGHT, WRONG] * 10)])
    group = CandidateGroup.from_problem(found.problem, found.candidates)
    with pytest.raises(JudgeError, match="no candidate of problem p could be judged"):
        Choice(group, group, None).narrow("public_tests", opinion)
    choice = Choice(group, group, None)
    choice.narrow("public_tests", Opinion(values=[None, 0.0], unjudged=frozenset({0})))
    chosen = choice.chosen()
    assert chosen.candidates[0].program == WRONG
    assert (chosen.extra["selection"]["of"], chosen.extra["selection"]["left_out"]) == (1, 1)


@pytest.fixture(scope="module")
def reward_model_dir(tiny_model_dir, tmp_path_factory):
    """A sequence classifier with one label, as `RewardTrainer` makes them."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("reward_model")
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("style", ["chat", "paper"])
def test_a_reward_models_score_is_that_of_the_whole_conversation(style, reward_model_dir):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    config = SelectConfig(by=["reward_model"], reward_model=str(reward_model_dir), prompt_style=style, batch_size=2)
    check_reward_model(config)
    first, second = contest([WRONG, RIGHT, WRONG]), contest([ALSO_RIGHT], prompt=[{"role": "user", "content": "Add."}])
    opinions = RewardModel(config).opinions([first, second])
    model, tokenizer = (kind.from_pretrained(reward_model_dir) for kind in (AutoModelForSequenceClassification, AutoTokenizer))

    def score(prompt, program):
        user = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template([*user, {"role": "assistant", "content": program}], tokenize=False)
        if style == "paper" and prompt != "Add.":  # messages stay messages
            text = f'"""\n{prompt}\n"""\n{program}'
        with torch.no_grad():
            return model(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, 0].item()

    asked = "Write a Python program for this task. Answer with code only.\n\nWrite add." if style == "chat" else "Write add."
    assert opinions[0].values == pytest.approx([score(asked, program) for program in (WRONG, RIGHT, WRONG)], abs=1e-5)
    assert opinions[1].values == pytest.approx([score("Add.", ALSO_RIGHT)], abs=1e-5)
    assert opinions[0].values[0] == opinions[0].values[2] != opinions[0].values[1]


def test_a_reward_is_the_same_whatever_shares_its_batch(reward_model_dir):
    pairs = [(contest([program]).problem, program) for program in (RIGHT, WRONG, BROKEN, ALSO_RIGHT, RIGHT * 5)]
    scores = [
        RewardModelScorer(SelectConfig(by=["reward_model"], reward_model=str(reward_model_dir), batch_size=size)).scores(pairs)
        for size in (1, 5)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_the_stage_chooses_by_a_reward_model_and_by_all_signals(reward_model_dir, tmp_path):
    rows = [
        CandidateGroup.from_problem(
            contest([]).problem,
            [Candidate(program=program, source="student", model="m", teacher_log_prob=-1.0) for program in (WRONG, RIGHT)],
        ).to_row()
        | {"problem_id": f"p/{i}", "prompt": f"Write add, {i}."}
        for i in range(40)  # more than share a batch, and more than run at once
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    by_reward = SelectConfig(by=["reward_model"], reward_model=str(reward_model_dir))
    arguments = SelectArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "s.jsonl"))
    summary = run_select(arguments, by_reward)
    assert (summary.problems, summary.best_of_n, summary.narrowed_by) == (40, None, {"reward_model": 40})
    scorer = RewardModelScorer(by_reward)
    for line in (tmp_path / "s.jsonl").read_text().splitlines():
        row = json.loads(line)
        pairs = [(Problem.from_row(row, "-"), program) for program in (WRONG, RIGHT)]
        scores = scorer.scores(pairs)
        assert row["selection"]["signals"]["reward_model"] == pytest.approx(scores, abs=1e-5)
        assert row["completions"] == [(WRONG, RIGHT)[scores.index(max(scores))]]
    by_all = replace(by_reward, by=["log_probability", "reward_model", "agreement", "public_tests"], public_tests=1)
    summary = run_select(replace(arguments, output=str(tmp_path / "a.jsonl")), by_all)
    assert summary.narrowed_by == {"log_probability": 0, "reward_model": 40, "agreement": 0, "public_tests": 0}


def test_a_score_that_is_no_number_is_refused(reward_model_dir):
    scorer = RewardModelScorer(SelectConfig(by=["reward_model"], reward_model=str(reward_model_dir)))
    with torch.no_grad():
        scorer._model.score.weight.fill_(float("nan"))
    with pytest.raises(ConfigError, match="`reward_model`: gives nan to a candidate of problem 'p'"):
        scorer.scores([(contest([RIGHT]).problem, RIGHT)])


def test_what_is_no_reward_model_is_refused(tiny_model_dir, reward_model_dir, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    def check(folder, **options):
        check_reward_model(SelectConfig(by=["reward_model"], reward_model=str(folder), **options))

    with pytest.raises(ConfigError, match="expected a sequence classifier with one label, got LlamaForCausalLM"):
        check(tiny_model_dir)
    AutoModelForSequenceClassification.from_pretrained(
        reward_model_dir, num_labels=3, ignore_mismatched_sizes=True
    ).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="got LlamaForSequenceClassification with 3"):
        check(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(reward_model_dir).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(reward_model_dir)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no chat template, and `prompt_style` is chat"):
        check(tmp_path)
    check(tmp_path, prompt_style="paper")
