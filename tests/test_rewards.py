"""Unit tests as a reward: the numbers, where they are made, and what TRL hands over. `recipes/grpo` trains on them."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.processes import still_running
from trl_rrtf import (
    AsyncUnitTestReward,
    ConfigError,
    JudgeConfig,
    Problem,
    RankConfig,
    RowError,
    UnitTestReward,
    unit_test_reward,
)

TESTS = [{"kind": "assert", "code": "assert f(1) == 2"}, {"kind": "assert", "code": "assert f(2) == 3"}]
PROGRAMS = {
    "def f(x):\n    return x + 1\n": 1.0,
    "def f(x):\n    return 2\n": (2 + 0.25) / 3,
    "def f(x):\n    return 0\n": 0.5,
    "def f(x):\n    return y\n": 1 / 3,
    "def f(x)\n": 0.0,
}


def said(*contents):
    """A completion: messages with these contents."""
    return [{"role": "assistant", "content": content} for content in contents]


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


@pytest.mark.parametrize(("credit", "expected"), [("tests", [1.0, 0.5, 0.0, 0.0, 0.0]), ("pass", [1.0, 0.0, 0.0, 0.0, 0.0])])
def test_tests_or_passes_alone_can_be_what_is_paid_for(credit, expected):
    with UnitTestReward(credit=credit) as reward:
        assert reward(["Write f."] * 5, list(PROGRAMS), [TESTS] * 5) == expected


def test_what_does_not_end_is_no_pass():
    tests = [{"kind": "check", "code": "def check(f):\n    assert f(1) == 2\n    f(2)\n"}]
    program = "def f(x):\n    if x == 2:\n        raise SystemExit\n    return 2\n"
    with UnitTestReward(credit="tests") as reward:
        assert reward(["Write f."], [program], [tests], entry_point=["f"]) == [0.5]


def test_the_scores_of_outcomes_can_be_chosen():
    with UnitTestReward(rank_config=RankConfig(partial_credit=0.0, failed_score=1.0)) as reward:
        assert reward(["Write f."] * 5, list(PROGRAMS), [TESTS] * 5) == pytest.approx([1.0, 2 / 3, 1 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"credit": "all"}, "`credit`: expected one of outcome, tests, pass, got 'all'"),
        ({"credit": "pass", "rank_config": RankConfig()}, "`rank_config`: it scores outcomes, and `credit='pass'` does not"),
    ],
)
def test_a_wrong_setting_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        UnitTestReward(**options)


def test_no_answer_is_worth_nothing():
    """An empty program runs, and one that reads standard input would even count as one that fails its tests mildly."""
    stdio = [{"kind": "stdio", "stdin": "1\n", "stdout": "2\n"}]
    completions = ["", " \n", [], said(""), said(None), [{"role": "assistant", "content": ""}]]
    assert unit_test_reward(["Write."] * 6, completions, [stdio] * 6) == [0.0] * 6


# --- Where it works --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_python(monkeypatch):
    """No process of the judge starts."""
    monkeypatch.setattr("sys.executable", "/no/such/python")


def test_a_failure_of_the_judge_is_left_out_said_once_and_counted(no_python, caplog):
    shares = {}
    with UnitTestReward(JudgeConfig(retries=0, num_workers=1)) as reward:
        for _ in range(2):
            rewards = reward(["Write f."] * 2, ["def f(x): return x", ""], [TESTS] * 2, log_metric=shares.__setitem__)
            assert rewards == [None, 0.0]
        assert reward.unjudged == 2
    assert shares["unit_test_reward/infrastructure"] == 0.5
    assert len(caplog.records) == 1
    assert "1 of 2 completions could not be judged (FileNotFoundError" in caplog.text
    assert "their reward is None" in caplog.text


@pytest.mark.parametrize("kind", [UnitTestReward, AsyncUnitTestReward])
@pytest.mark.parametrize("copied", [lambda reward: pickle.loads(pickle.dumps(reward)), copy.deepcopy])
def test_a_copy_has_the_settings_and_a_judge_of_its_own(kind, copied):
    with kind(JudgeConfig(timeout=3, num_workers=1), RankConfig(partial_credit=0.1), name="tests") as reward:
        first = reward.judge
        with copied(reward) as other:
            assert type(other) is kind
            assert (other.__name__, other.judge_config, other.rank_config) == ("tests", reward.judge_config, reward.rank_config)
            assert repr(other) == repr(reward)
            assert other.judge is not first
        assert reward.judge is first


def test_after_closing_it_opens_a_new_judge():
    reward = UnitTestReward(JudgeConfig(num_workers=1))
    for _ in range(2):
        assert reward(["Write f."], [next(iter(PROGRAMS))], [TESTS]) == [1.0]
        reward.close()
        reward.close()


def test_several_threads_may_call_it():
    expected = list(PROGRAMS.values())
    with UnitTestReward(JudgeConfig(num_workers=2)) as reward, ThreadPoolExecutor(4) as threads:
        results = threads.map(lambda _: reward(["Write f."] * 5, list(PROGRAMS), [TESTS] * 5), range(8))
        assert all(rewards == pytest.approx(expected) for rewards in results)


def test_the_processes_of_a_launcher_share_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    workers = {}
    for processes in ("1", "2", "16"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        with UnitTestReward() as reward:
            workers[processes] = reward.judge.num_workers
    assert workers == {"1": 8, "2": 4, "16": 1}
    with UnitTestReward(JudgeConfig(num_workers=3)) as reward:
        assert reward.judge.num_workers == 3


WORKS_IN_EVERY_PROCESS = """
import multiprocessing, os, sys
from tests.processes import children
from trl_rrtf import JudgeConfig, UnitTestReward, unit_test_reward

TESTS = [{"kind": "assert", "code": "assert f(1) == 2"}]

def work(where, reward):
    for function in (reward, unit_test_reward):
        rewards = function(["Write f."] * 2, ["def f(x): return 2", "def f(x): return 3"], [TESTS] * 2)
        assert rewards == [1.0, 0.5], rewards
    print(where, *children(os.getpid()), flush=True)

if __name__ == "__main__":
    reward = UnitTestReward(JudgeConfig(num_workers=1, timeout=3))
    work("own", reward)
    for way in ("fork", "spawn"):
        process = multiprocessing.get_context(way).Process(target=work, args=(way, reward))
        process.start()
        process.join()
        assert process.exitcode == 0, way
    child = os.fork()
    if child == 0:
        work("os.fork", reward)
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    work("own", reward)
"""


def test_every_process_has_a_judge_of_its_own_that_ends_with_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WORKS_IN_EVERY_PROCESS)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=200, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["own", "fork", "spawn", "os.fork", "own"]
    assert set(lines[0]) <= set(lines[-1])  # the forks did not touch the judge of their parent
    processes = [number for _, *numbers in lines[:-1] for number in numbers]  # later there is a helper of multiprocessing too
    assert len(set(processes)) >= 4 * 4  # a checker and a server of both rewards, in each of four processes
    assert not still_running(processes)


def test_it_works_in_an_actor_of_ray():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        reward = UnitTestReward(JudgeConfig(num_workers=1), name="tests")
        actor = ray.remote(type("Actor", (), {"call": lambda self, reward, *batch: (reward.__name__, reward(*batch))})).remote()
        assert ray.get(actor.call.remote(reward, ["Write f."], ["def f(x): return x + 1"], [TESTS])) == ("tests", [1.0])
    finally:
        ray.shutdown()


def test_a_judge_ends_with_the_reward_that_nobody_holds():
    reward = UnitTestReward(JudgeConfig(num_workers=1))
    judge = reward.judge
    reward(["Write f."], ["def f(x): return 2"], [TESTS])
    del reward
    assert judge.judge(Problem.from_row({"problem_id": "a", "prompt": "p", "tests": TESTS}, "a"), "").detail.startswith(
        "the judge is closed"
    )


def test_the_asynchronous_one_leaves_the_loop_to_others():
    async def both():
        return await asyncio.gather(*[reward(["Write f."] * 5, list(PROGRAMS), [TESTS] * 5) for _ in range(2)], count_to_ten())

    async def count_to_ten():
        for _ in range(10):
            await asyncio.sleep(0.001)
        return 10

    with AsyncUnitTestReward(JudgeConfig(num_workers=2)) as reward:
        *rewards, count = asyncio.run(both())
    assert rewards == [pytest.approx(list(PROGRAMS.values()))] * 2
    assert count == 10


# --- What TRL hands over and logs ------------------------------------------------------------------------------------------


def test_the_logs_tell_the_outcomes():
    metrics, extra = {}, {}
    completions = list(PROGRAMS)
    hooks = {"log_metric": metrics.__setitem__, "log_extra": extra.__setitem__}
    unit_test_reward(["Write f."] * 5, completions, [TESTS] * 5, completion_ids=[[1]] * 5, trainer_state=None, **hooks)
    shares = dict.fromkeys(("compile_error", "runtime_error", "failed", "partial", "passed"), 0.2) | {"infrastructure": 0.0}
    assert metrics == {f"unit_test_reward/{outcome}": share for outcome, share in shares.items()}
    outcomes = ["passed 2/2", "partial 1/2", "failed 0/2", "runtime_error 0/2", "compile_error 0/2"]
    assert extra["unit_test_reward_outcome"] == outcomes
    assert extra["unit_test_reward_detail"][3] == "NameError: name 'y' is not defined, line 2"


def test_the_shares_are_of_all_completions_also_those_without_a_program():
    metrics = {}
    unit_test_reward(["Write f."] * 4, ["", "def f(x): return x + 1", "", "?"], [TESTS] * 4, log_metric=metrics.__setitem__)
    assert (metrics["unit_test_reward/compile_error"], metrics["unit_test_reward/passed"]) == (0.75, 0.25)


def test_a_bad_row_is_named():
    with pytest.raises(RowError, match="row 0 of the batch, column `tests`"):
        unit_test_reward(["Write f."], ["x"], [[]])


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
        (["a"], r"completions\[0\]`: expected a message .*got str 'a'"),
        (None, "completions`: expected text or messages .*got nothing"),
        ({"role": "assistant", "content": "a"}, "completions`: expected text or messages .*got dict"),
    ],
)
def test_a_completion_that_is_no_text_is_named(completion, column):
    with pytest.raises(RowError, match=f"row 1 of the batch, column `{column}"):
        unit_test_reward(["Write f."] * 2, ["x", completion], [TESTS] * 2)


def test_only_the_models_own_words_count():
    right, wrong = "def f(x):\n    return x + 1\n", "def f(x):\n    return 0\n"
    tool = {"role": "tool", "name": "run", "content": f"```python\n{right}```"}
    calls = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "run", "arguments": {}}}]}
    completions = [
        [calls, tool],
        [calls, tool, *said(f"```python\n{wrong}```")],
        [calls, tool, *said(f"```python\n{right}```")],
        [*said(f"```python\n{wrong}```"), tool, *said(f"```python\n{right}```")],
    ]
    assert unit_test_reward(["Write f."] * 4, completions, [TESTS] * 4, entry_point=["f"] * 4) == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_counts_only_where_there_is_no_answer(key):
    right, wrong = "```python\ndef f(x):\n    return x + 1\n```", "```python\ndef f(x):\n    return 0\n```"
    answers = [(right, wrong), (wrong, right), (right, ""), (right, None), (None, right)]
    completions = [[{"role": "assistant", "content": content, key: thinking}] for thinking, content in answers]
    assert unit_test_reward(["Write f."] * 5, completions, [TESTS] * 5, entry_point=["f"] * 5) == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_a_program_goes_on_from_the_users_last_message():
    question = "from math import sqrt as root\n\n\ndef f(x):\n    # returns one more\n"
    messages = [
        {"role": "system", "content": "Write."},
        {"role": "user", "content": "Hi."},
        {"role": "user", "content": question},
    ]
    completions = ["    return x + int(root(1))\n", "def f(x):\n    return x + int(root(1))\n"]
    for prompt in (question, messages):
        assert unit_test_reward([prompt] * 2, completions, [TESTS] * 2, entry_point=["f"] * 2) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "the batch, column `tests`: the data set has no such column; it needs those of problem rows"),
        ({"tests": [TESTS] * 2}, r"the batch, column `tests`: expected a list with one entry per completion \(1\), got 2"),
        ({"tests": [TESTS], "entry_point": "f"}, r"column `entry_point`: expected a list .* \(1\), got str 'f'"),
        ({"tests": ["assert f(1) == 2"]}, "row 0 of the batch, column `tests`: expected a list, got str"),
        ({"tests": [[]], "problem_id": ["mine/1"]}, r"row 0 of the batch \(mine/1\), column `tests`: the list is empty"),
    ],
)
def test_a_batch_that_cannot_be_judged_is_named(columns, message):
    with pytest.raises(RowError, match=message):
        unit_test_reward(["Write f."], ["def f(x): return 2"], **columns)


def test_leetcodes_names_are_there_for_a_solution():
    tests = [{"kind": "assert", "code": "assert Solution().first([3, 4]) == 3"}]
    program = "class Solution:\n    def first(self, xs: List[int]) -> Optional[int]:\n        return deque(xs).popleft()\n"
    assert unit_test_reward(["Write class Solution."], [program], [tests], entry_point=["Solution"]) == [1.0]
