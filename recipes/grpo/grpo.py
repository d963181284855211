"""GRPO on problems with unit tests: TRL's trainer, with the tests as its reward.

    python recipes/grpo/grpo.py --model models/SmolLM2-135M-Instruct --problems recipes/data/composed_problems.jsonl \
        --output_dir runs/grpo --max_steps 40

Every option of `GRPOConfig` is one of this script, in a file with `--config` too, and it runs under `accelerate launch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, TrlParser

from trl_rrtf import JudgeConfig, UnitTestReward, load_problems


@dataclass
class Arguments:
    """What TRL's configuration does not have."""

    model: str = field(metadata={"help": "An instruct model: a folder or a Hub id."})
    problems: str = field(metadata={"help": "Problem rows: a file, or a Hub data set id."})
    credit: str = field(default="outcome", metadata={"help": "What is paid for: outcome, tests or pass."})
    timeout: float = field(default=3.0, metadata={"help": "Seconds for the tests of a program."})

    def reward(self) -> UnitTestReward:
        """The reward that the trainer calls."""
        return UnitTestReward(JudgeConfig(timeout=self.timeout), credit=self.credit)

    def prompts(self, split: str) -> Dataset:
        """The problems of a split (all, where none is named): a prompt for the chat template, and columns for the reward."""
        problems = [problem for problem in load_problems(self.problems) if problem.extra.get("split", split) == split]
        rows = [
            {
                "prompt": [{"role": "user", "content": problem.prompt}],
                "tests": [test.to_row() for test in problem.tests],
                "entry_point": problem.entry_point,
                "setup_code": problem.setup_code,
                "problem_id": problem.problem_id,
            }
            for problem in problems
        ]
        return Dataset.from_list(rows)


def main(command_line: list[str] | None = None) -> GRPOTrainer:
    """Trains, and saves the model."""
    arguments, config = TrlParser((Arguments, GRPOConfig)).parse_args_and_config(command_line)
    trainer = GRPOTrainer(
        model=arguments.model,
        reward_funcs=arguments.reward(),
        args=config,
        train_dataset=arguments.prompts("train"),
        eval_dataset=arguments.prompts("heldout") if config.eval_strategy != "no" else None,
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
