"""Unit tests as a reward: the numbers, and a real GRPO training on them."""

from __future__ import annotations

import pytest
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from trl_rrtf import JudgeConfig, RowError, UnitTestReward, unit_test_reward

TESTS = [{"kind": "assert", "code": "assert f(1) == 2"}, {"kind": "assert", "code": "assert f(2) == 3"}]
PROGRAMS = {
    "def f(x):\n    return x + 1\n": 1.0,
    "def f(x):\n    return 2\n": (2 + 0.25) / 3,
    "def f(x):\n    return 0\n": 0.5,
    "def f(x):\n    return y\n": 1 / 3,
    "def f(x)\n": 0.0,
}


def test_the_outcome_decides_the_reward():
    texts = [f"Here it is:\n```python\n{program}```\n" for program in PROGRAMS]
    columns = {"tests": [TESTS] * 5, "entry_point": ["f"] * 5, "trainer_state": None}
    prompts = ["Write f."] * 5
    assert unit_test_reward(prompts, texts, **columns) == pytest.approx(list(PROGRAMS.values()))
    messages = [[{"role": "assistant", "content": text}] for text in texts]
    assert unit_test_reward(prompts, messages, **columns) == pytest.approx(list(PROGRAMS.values()))


def test_each_row_is_judged_by_its_own_tests():
    tests = [[{"kind": "assert", "code": f"assert f() == {i}"}] for i in (1, 1, 2)]
    assert unit_test_reward(["p"] * 3, ["def f():\n    return 1\n"] * 3, tests) == [1.0, 1.0, 0.5]


def test_a_failure_of_the_judge_is_left_out(monkeypatch):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    reward = UnitTestReward(JudgeConfig(retries=0, num_workers=1))
    assert reward(["Write f."], ["def f(x): return x"], [TESTS]) == [None]
    reward.close()


def test_a_bad_row_is_named():
    with pytest.raises(RowError, match="row 0 of the batch, column `tests`"):
        unit_test_reward(["Write f."], ["x"], [[]])


def said(*contents):
    """A completion: messages with these contents."""
    return [{"role": "assistant", "content": content} for content in contents]


def test_a_completion_of_parts_is_judged_by_its_text():
    program = "def f(x):\n    return x + 1\n"
    fenced = [{"type": "text", "text": "Here:\n```python\n"}, {"type": "text", "text": f"{program}```\n"}]
    completions = [said(fenced), said([{"type": "text", "text": program}]), said("```python\n", f"{program}```")]
    completions.append([{"role": "assistant", "content": None, "tool_calls": [{}]}, *said(program)])
    count = len(completions)
    assert unit_test_reward(["Write f."] * count, completions, [TESTS] * count, entry_point=["f"] * count) == [1.0] * count


@pytest.mark.parametrize(
    ("completion", "column"),
    [
        (said([{"type": "image", "url": "x"}]), r"completions\[0\]\.content\[0\]`: .*only text is read"),
        (said([{"type": "text", "text": "a"}, "b"]), r"completions\[0\]\.content\[1\]`: .*got str 'b'"),
        (said("a", 7), r"completions\[1\]\.content`: expected text, or a list of parts .*got int 7"),
        (said(None), r"completions\[0\]\.content`: .*got nothing"),
        (["a"], r"completions\[0\]`: expected a message .*got str 'a'"),
        (None, "completions`: expected text or messages .*got nothing"),
        ({"role": "assistant", "content": "a"}, "completions`: expected text or messages .*got dict"),
    ],
)
def test_a_completion_that_is_no_text_is_named(completion, column):
    with pytest.raises(RowError, match=f"row 1 of the batch, column `{column}"):
        unit_test_reward(["Write f."] * 2, ["x", completion], [TESTS] * 2)


def test_leetcodes_names_are_there_for_a_solution():
    tests = [{"kind": "assert", "code": "assert Solution().first([3, 4]) == 3"}]
    program = "class Solution:\n    def first(self, xs: List[int]) -> Optional[int]:\n        return deque(xs).popleft()\n"
    assert unit_test_reward(["Write class Solution."], [program], [tests], entry_point=["Solution"]) == [1.0]


def test_grpo_trains_on_it(tiny_model_dir, tmp_path):
    rows = {"prompt": ["Write f."] * 4, "tests": [TESTS] * 4, "entry_point": ["f"] * 4}
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        max_steps=2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    trainer = GRPOTrainer(
        str(tiny_model_dir), reward_funcs=unit_test_reward, args=arguments, train_dataset=Dataset.from_dict(rows)
    )
    trainer.train()
    rewards = [entry["rewards/unit_test_reward/mean"] for entry in trainer.state.log_history if "reward" in entry]
    assert len(rewards) == 2
    assert all(0 <= reward <= 1 for reward in rewards)
