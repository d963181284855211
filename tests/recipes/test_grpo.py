"""The scripts of `recipes/grpo` train a tiny model; the asynchronous one has TRL's own rollouts, from a stand-in for vLLM."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import transformers
from transformers import AutoTokenizer

from tests.processes import descendants, still_running
from tests.rollout_server import rollout_server
from trl_rrtf import AsyncUnitTestReward, UnitTestReward

RECIPE = Path(__file__).parents[2] / "recipes" / "grpo"
PROBLEMS = RECIPE.parent / "data" / "composed_problems.jsonl"
OUTCOMES = ("compile_error", "runtime_error", "failed", "partial", "passed", "infrastructure")

pytestmark = [
    # 2026-11-27: TRL 1.16 says of each experimental trainer that it is one.
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
    # 2026-11-27: `transformers.Trainer` calls what torch 2.13 gives another name, after `OnlineDPOTrainer`'s steps.
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning"),
]


@pytest.fixture
def script(monkeypatch):
    """Imports a script, as Python does that runs it."""
    monkeypatch.syspath_prepend(str(RECIPE))
    return importlib.import_module


@pytest.fixture(scope="session")
def chat_model_dir(tiny_model_dir, tmp_path_factory):
    """The tiny model, with a tokenizer that makes of a conversation what its model reads, as real ones do."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(tiny_model_dir, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_input_names": ["input_ids", "attention_mask"]}))
    return folder


def options(model, output, **others):
    """A command line for two steps on a CPU."""
    common = {"model": model, "problems": PROBLEMS, "output_dir": output, "max_steps": 2, "logging_steps": 1, "bf16": False}
    common |= {"use_cpu": True, "report_to": "none", "save_strategy": "no", **others}
    return [text for name, value in common.items() for text in (f"--{name}", str(value))]


def test_the_script_to_copy_is_short():
    assert len((RECIPE / "grpo.py").read_text().splitlines()) < 80


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_it_trains_and_logs_outcomes(script, chat_model_dir, tmp_path, name):
    sizes = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8, "log_completions": True}
    trainer = script(name).main(options(chat_model_dir, tmp_path, **sizes, credit="tests"))
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == 2
    for entry in logged:
        assert 0 <= entry["rewards/unit_test_reward/mean"] <= 1
        assert sum(entry[f"unit_test_reward/{outcome}"] for outcome in OUTCOMES) == pytest.approx(1)
    assert len(trainer._logs["extra"]["unit_test_reward_outcome"]) == 4
    assert (tmp_path / "model.safetensors").exists()


def test_trl_awaits_the_asynchronous_one_beside_another(script, chat_model_dir, tmp_path, monkeypatch):
    module = script("grpo")
    rewards = [AsyncUnitTestReward(), AsyncUnitTestReward(credit="pass", name="passes")]
    monkeypatch.setattr(module.Arguments, "reward", lambda _: rewards)
    sizes = {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 8}
    trainer = module.main(options(chat_model_dir, tmp_path, **sizes))
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == 2
    for name in ("unit_test_reward", "passes"):
        assert all(f"rewards/{name}/mean" in entry and f"{name}/passed" in entry for entry in logged)


def test_it_evaluates_on_problems_that_are_held_out(script, chat_model_dir, tmp_path):
    problems = tmp_path / "problems.jsonl"
    rows = [json.loads(line) for line in PROBLEMS.read_text().splitlines()]
    chosen = [next(row for row in rows if row["split"] == split) for split in ("train", "heldout")]
    problems.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    sizes = {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 4, "eval_strategy": "steps"}
    command = options(chat_model_dir, tmp_path, **sizes, per_device_eval_batch_size=2, problems=problems, eval_steps=2)
    trainer = script("grpo").main(command)
    assert [row["problem_id"] for row in trainer.train_dataset] == [chosen[0]["problem_id"]]
    assert [row["problem_id"] for row in trainer.eval_dataset] == [chosen[1]["problem_id"]]
    assert any("eval_unit_test_reward/passed" in entry for entry in trainer.state.log_history)


def test_the_tiny_model_of_the_measurement_reads_conversations(script, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tiny_model.py", "--output", str(tmp_path), "--steps", "1"])
    monkeypatch.setattr("sys.path", list(sys.path))
    script("tiny_model").main()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer.apply_chat_template([{"role": "user", "content": "Hi."}], add_generation_prompt=True, return_dict=True)
    assert sorted(encoded) == ["attention_mask", "input_ids"]
    assert tokenizer.decode(encoded["input_ids"]) == "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"


def test_online_dpo_trains_on_it(script, chat_model_dir, tmp_path):
    trainer = script("online_dpo").main(options(chat_model_dir, tmp_path, per_device_train_batch_size=2, max_new_tokens=8))
    scores = [entry["objective/scores"] for entry in trainer.state.log_history if "objective/scores" in entry]
    assert len(scores) == 2
    assert all(0 <= score <= 1 for score in scores)


@pytest.fixture
def vllm(chat_model_dir):
    """The part of vLLM's server that rollouts ask; every other answer is the solution of the problem in the prompt."""
    tokenizer = AutoTokenizer.from_pretrained(chat_model_dir)
    solutions = {row["prompt"]: row["reference_solution"] for row in map(json.loads, PROBLEMS.read_text().splitlines())}
    asked = []

    def answer(prompt_ids):
        prompt = tokenizer.decode(prompt_ids)
        asked.append(prompt)
        solution = next(solutions[text] for text in solutions if text in prompt)
        text = f"```python\n{solution}```" if len(asked) % 2 else "I do not know."
        return [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]

    with rollout_server(answer) as address:
        yield address


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="TRL's asynchronous GRPO needs transformers 5")
@pytest.mark.parametrize("kind", [AsyncUnitTestReward, UnitTestReward])
def test_asynchronous_rollouts_are_rewarded_in_their_own_process(script, chat_model_dir, tmp_path, vllm, monkeypatch, kind):
    """What `AsyncGRPOTrainer` does but the update itself, which needs FlashAttention 3, and the transfer of weights."""
    module = script("async_grpo")
    rollouts = importlib.import_module("trl.experimental.async_grpo.async_rollout_worker")
    monkeypatch.setattr(rollouts, "is_vllm_available", lambda: True)
    monkeypatch.setattr(module, "AsyncUnitTestReward", kind)

    class RolloutsAlone:
        """The trainer's part that calls the reward."""

        def __init__(self, model, reward_funcs, args, train_dataset):
            tokenizer = AutoTokenizer.from_pretrained(model)
            # A template whose answers TRL can read; it knows those of published models by their text.
            templates = Path(rollouts.__file__).parents[2] / "chat_templates"
            tokenizer.chat_template = (templates / "qwen3.jinja").read_text()
            self.worker = rollouts.AsyncRolloutWorker(
                model_name=model,
                dataset=train_dataset,
                reward_funcs=[reward_funcs],
                processing_class=tokenizer,
                eos_token_ids=[tokenizer.eos_token_id],
                num_generations=args.num_generations,
                max_inflight_tasks=4,
                queue_maxsize=8,
                vllm_server_url=args.vllm_server_base_url,
            )

        def train(self):
            self.worker.start()
            try:
                self.samples = [self.worker.rollout_buffer.get(timeout=120) for _ in range(8)]
                self.processes = [str(self.worker._process.pid), *descendants(self.worker._process.pid)]
            finally:
                self.worker.stop()

        def save_model(self):
            pass

    monkeypatch.setattr(module, "AsyncGRPOTrainer", RolloutsAlone)
    trainer = module.main(options(chat_model_dir, tmp_path, num_generations=4, vllm_server_base_url=vllm))
    rewards = [sample.metrics["rewards/unit_test_reward"] for sample in trainer.samples]
    assert sorted(rewards) == [0.0] * 4 + [1.0] * 4
    assert all(sample.advantage * (reward - 0.5) > 0 for sample, reward in zip(trainer.samples, rewards, strict=True))
    assert len(trainer.processes) > 2
    assert not still_running(trainer.processes)
