"""The script of `recipes/grpo` that trains with repair turns, with a tiny model that knows one episode by heart."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import transformers
from packaging.version import Version

from trl_rrtf import ConfigError

RECIPE = Path(__file__).parents[2] / "recipes" / "grpo"
PROBLEMS = RECIPE.parent / "data" / "composed_problems.jsonl"
OUTCOMES = ("compile_error", "runtime_error", "failed", "partial", "passed", "infrastructure")
NEW_ENOUGH = Version(transformers.__version__) >= Version("5.2")

# 2026-11-27: TRL 1.16 says of `environment_factory` that it is experimental.
pytestmark = pytest.mark.filterwarnings("ignore:You are using 'environment_factory'")
needs_environments = pytest.mark.skipif(not NEW_ENOUGH, reason="TRL's `environment_factory` needs transformers 5.2")


@pytest.fixture(scope="module")
def recipe():
    """Imports a script, as Python does that runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(RECIPE), *sys.path])
        yield importlib.import_module


@pytest.fixture(scope="module")
def by_heart(recipe, tmp_path_factory):
    """A model that has learnt one episode, and a file with its problem and one that it never saw."""
    folder = tmp_path_factory.mktemp("by_heart")
    script = recipe("tiny_repair_model")
    with pytest.MonkeyPatch.context() as patch:
        options = ["--output", str(folder / "model"), "--steps", "60", "--episodes", "1"]
        patch.setattr(sys, "argv", ["tiny_repair_model.py", *options])
        script.main()
    rows = [json.loads(line) for line in PROBLEMS.read_text().splitlines()]
    names = {row["problem_id"] for row in rows}
    known = next(row for row in script.compose(100_000, seed=0) if row["problem_id"] not in names)
    problems = [{**known, "split": "train"}, next(row for row in rows if row["split"] == "heldout")]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    return folder


def options(folder, output, **others):
    """A command line for two steps on a CPU."""
    common = {"model": folder / "model", "problems": folder / "problems.jsonl", "output_dir": output, "max_steps": 2}
    common |= {"logging_steps": 1, "bf16": False, "use_cpu": True, "report_to": "none", "save_strategy": "no"}
    common |= {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 320, **others}
    return [text for name, value in common.items() for text in (f"--{name}", str(value))]


def test_the_script_to_copy_is_short():
    assert len((RECIPE / "repair.py").read_text().splitlines()) < 100


@needs_environments
def test_it_runs_public_tests_submits_and_is_paid_for_all_tests(recipe, by_heart, tmp_path):
    # Nearly greedy: the model says what it knows by heart.
    command = options(by_heart, tmp_path, public_tests=1, temperature=0.1, credit="tests", log_completions=True)
    trainer = recipe("repair").main(command)
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == 2
    for entry in logged:
        own = {
            name: entry[f"unit_test_environment_reward/{name}"] for name in (*OUTCOMES, "submitted", "test_runs", "repaired")
        }
        assert sum(own[outcome] for outcome in OUTCOMES) == pytest.approx(1)
        assert own["passed"] == own["submitted"] == own["test_runs"] == entry["reward"] == 1
        assert own["repaired"] == 0
        assert entry["tools/call_frequency"] == 2
        assert entry["tools/failure_frequency"] == 0
    assert trainer._logs["extra"]["unit_test_environment_reward_outcome"][-1] == "passed 6/6"
    assert (tmp_path / "model.safetensors").exists()
    assert trainer.max_tool_calling_iterations == 4


@needs_environments
def test_it_evaluates_on_problems_that_are_held_out(recipe, by_heart, tmp_path):
    sizes = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4, "temperature": 0.1}
    trainer = recipe("repair").main(options(by_heart, tmp_path, public_tests=1, **sizes))
    [entry] = [entry for entry in trainer.state.log_history if "eval_reward" in entry]
    assert 0 <= entry["eval_unit_test_environment_reward/submitted"] <= 1


def test_turns_that_do_not_reach_submit_are_refused(recipe, tmp_path):
    command = options(tmp_path, tmp_path, problems=PROBLEMS, max_test_runs=2, max_tool_calling_iterations=2)
    with pytest.raises(ConfigError, match="2 runs of the tests and `submit` need at least 3, got 2; raise it, or lower"):
        recipe("repair").main(command)


@pytest.mark.skipif(NEW_ENOUGH, reason="with transformers 5.2 it trains")
def test_an_older_transformers_is_refused_by_trl(recipe, tiny_model_dir, tmp_path):
    command = options(tmp_path, tmp_path, model=tiny_model_dir, problems=PROBLEMS, public_tests=1)
    with pytest.raises(ImportError, match=r"`environment_factory` with GRPOTrainer requires transformers version 5\.2\.0"):
        recipe("repair").main(command)
