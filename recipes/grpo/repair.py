"""GRPO with repair turns: the model runs public tests, repairs its program and submits it; all tests make the reward.

    python recipes/grpo/repair.py --model Qwen/Qwen3-0.6B --problems recipes/data/composed_problems.jsonl --public_tests 1 \
        --output_dir runs/repair --max_completion_length 2048

As `grpo.py`, with transformers 5.2 or newer and a model whose chat template has tools.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset
from grpo import Arguments
from trl import GRPOConfig, GRPOTrainer, TrlParser

from trl_rrtf import ConfigError, JudgeConfig, UnitTestEnvironmentFactory, load_problems, unit_test_environment_reward

INSTRUCTION = "\nRun the public tests on your program, repair it until they pass, and submit it."


@dataclass
class RepairArguments(Arguments):
    """What neither TRL's configuration nor `grpo.py` has."""

    public_tests: int | None = field(
        default=None,
        metadata={"help": "Tests, from the first on, that the model may see, where the rows have no column `public_tests`."},
    )
    max_test_runs: int = field(default=3, metadata={"help": "How often an episode may run the public tests."})

    def factory(self) -> UnitTestEnvironmentFactory:
        """What makes the episodes' environments."""
        return UnitTestEnvironmentFactory(
            JudgeConfig(timeout=self.timeout),
            public_tests=self.public_tests,
            max_test_runs=self.max_test_runs,
            credit=self.credit,
        )

    def episodes(self, split: str) -> Dataset:
        """The problems of a split, with the instruction behind the question."""
        public = {problem.problem_id: problem.extra.get("public_tests") for problem in load_problems(self.problems)}
        rows = [
            {
                **row,
                "prompt": [{"role": "user", "content": row["prompt"][0]["content"] + INSTRUCTION}],
                "public_tests": public[row["problem_id"]],
            }
            for row in self.prompts(split)
        ]
        return Dataset.from_list(rows)


def main(command_line: list[str] | None = None) -> GRPOTrainer:
    """Trains, and saves the model."""
    arguments, config = TrlParser((RepairArguments, GRPOConfig)).parse_args_and_config(command_line)
    turns = arguments.max_test_runs + 1  # the last submits
    if config.max_tool_calling_iterations is None:
        config.max_tool_calling_iterations = turns
    if config.max_tool_calling_iterations < turns:
        raise ConfigError(
            f"`max_tool_calling_iterations`: {arguments.max_test_runs} runs of the tests and `submit` need at least {turns}, "
            f"got {config.max_tool_calling_iterations}; raise it, or lower `max_test_runs`"
        )
    trainer = GRPOTrainer(
        model=arguments.model,
        reward_funcs=unit_test_environment_reward,
        args=config,
        train_dataset=arguments.episodes("train"),
        eval_dataset=arguments.episodes("heldout") if config.eval_strategy != "no" else None,
        environment_factory=arguments.factory(),
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
