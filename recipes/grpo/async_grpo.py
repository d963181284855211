"""Asynchronous GRPO on problems with unit tests: as `grpo.py`, with the options of `AsyncGRPOConfig`.

    vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}' ...     # see TRL's page on `AsyncGRPOTrainer`
    python recipes/grpo/async_grpo.py --model MODEL --problems PROBLEMS --output_dir runs/async_grpo

It needs vLLM (`pip install -c constraints-vllm.txt 'trl-rrtf[peft,vllm]'`) and a GPU with FlashAttention 3. TRL spawns a
process that generates and calls the reward: the reward is pickled into it, opens its judge there, and ends with it.
"""

from __future__ import annotations

from grpo import Arguments
from trl import TrlParser
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer

from trl_rrtf import AsyncUnitTestReward, JudgeConfig


def main(command_line: list[str] | None = None) -> AsyncGRPOTrainer:
    """Trains, and saves the model."""
    arguments, config = TrlParser((Arguments, AsyncGRPOConfig)).parse_args_and_config(command_line)
    trainer = AsyncGRPOTrainer(
        model=arguments.model,
        reward_funcs=AsyncUnitTestReward(JudgeConfig(timeout=arguments.timeout), credit=arguments.credit),
        args=config,
        train_dataset=arguments.prompts("train"),
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
