"""Online DPO on problems with unit tests: as `grpo.py`, with the options of `OnlineDPOConfig`.

Of two completions the one with more reward is chosen. Two that get the same are trained on too, and one that could not be
judged counts as 0 (TRL 1.16); its logs have the mean of the rewards, and none of the outcomes.
"""

from __future__ import annotations

from grpo import Arguments
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import TrlParser
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer


def main(command_line: list[str] | None = None) -> OnlineDPOTrainer:
    """Trains, and saves the model."""
    arguments, config = TrlParser((Arguments, OnlineDPOConfig)).parse_args_and_config(command_line)
    trainer = OnlineDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype="float32"),
        reward_funcs=arguments.reward(),
        args=config,
        train_dataset=arguments.prompts("train"),
        processing_class=AutoTokenizer.from_pretrained(arguments.model, padding_side="left"),
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
