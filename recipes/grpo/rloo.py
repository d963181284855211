"""RLOO on problems with unit tests: as `grpo.py`, with `RLOOTrainer` and the options of `RLOOConfig`."""

from __future__ import annotations

from grpo import Arguments
from trl import RLOOConfig, RLOOTrainer, TrlParser


def main(command_line: list[str] | None = None) -> RLOOTrainer:
    """Trains, and saves the model."""
    arguments, config = TrlParser((Arguments, RLOOConfig)).parse_args_and_config(command_line)
    trainer = RLOOTrainer(
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
