"""The environment in the rollouts of TRL's asynchronous GRPO, in their own process; a stand-in for vLLM's server speaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from packaging.version import Version

from tests.processes import descendants, still_running
from tests.rollout_server import rollout_server
from trl_rrtf import JudgeConfig, UnitTestEnvironmentFactory

pytestmark = [
    pytest.mark.skipif(Version(transformers.__version__) < Version("5.2"), reason="TRL's environments need transformers 5.2"),
    # 2026-11-27: TRL 1.16 says of each experimental trainer that it is one.
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
]

WRONG, RIGHT = "def f(x):\n    return x\n", "def f(x):\n    return x + 1\n"
TURNS = [("run_public_tests", WRONG), ("run_public_tests", RIGHT), ("submit", RIGHT), None]
ROW = {
    "prompt": [{"role": "user", "content": "Write f."}],
    "tests": [{"kind": "assert", "code": f"assert f({x}) == {x + 1}"} for x in (1, 2)],
    "entry_point": "f",
}


@pytest.fixture
def tokenizer(tiny_model_dir):
    """With a template that TRL knows: it knows those of published models by their text."""
    import trl

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


@pytest.fixture
def vllm(tokenizer):
    """The part of vLLM's server that rollouts ask; it makes the next call of an episode, and keeps what it was asked."""
    asked = []

    def answer(prompt_ids):
        asked.append(tokenizer.decode(prompt_ids))
        turn = TURNS[asked[-1].count("<tool_response>")]
        call = turn and json.dumps({"name": turn[0], "arguments": {"program": turn[1]}})
        return tokenizer(f"<tool_call>\n{call}\n</tool_call>" if call else "Done.")["input_ids"] + [tokenizer.eos_token_id]

    with rollout_server(answer) as address:
        yield address, asked


def test_rollouts_run_public_tests_and_tell_their_own_reward(tokenizer, vllm, monkeypatch):
    from accelerate import PartialState
    from datasets import Dataset
    from trl.experimental.async_grpo import async_rollout_worker as rollouts

    PartialState()  # the trainer's, which its loggers need
    address, asked = vllm
    monkeypatch.setattr(rollouts, "is_vllm_available", lambda: True)
    worker = rollouts.AsyncRolloutWorker(
        model_name="tiny",
        dataset=Dataset.from_list([ROW] * 2),
        reward_funcs=[],
        environment_factory=UnitTestEnvironmentFactory(JudgeConfig(timeout=3, num_workers=1), public_tests=1, owns_reward=True),
        processing_class=tokenizer,
        eos_token_ids=[tokenizer.eos_token_id],
        num_generations=2,
        max_inflight_tasks=2,
        queue_maxsize=4,
        max_tokens=4096,
        vllm_server_url=address,
    )
    worker.start()
    try:
        samples = [worker.rollout_buffer.get(timeout=120) for _ in range(2)]
        processes = [str(worker._process.pid), *descendants(worker._process.pid)]
    finally:
        worker.stop()
    assert [sample.metrics["rewards/OwnRewardUnitTestEnvironment"] for sample in samples] == [1, 1]
    last = next(prompt for prompt in asked if prompt.count("<tool_response>") == 3)
    shown = [part.split("\n</tool_response>")[0] for part in last.split("<tool_response>\n")[1:]]
    assert shown == ["This test fails:\nassert f(1) == 2\nExpected: 2\nGot: 1", "The public test passes.", "Submitted."]
    assert len(processes) > 2  # the judge's own among them
    assert not still_running(processes)
