"""A callback that measures pass@k while a model is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trl_rrtf.errors import ConfigError
from trl_rrtf.evaluation.config import EvaluateArguments
from trl_rrtf.evaluation.stage import run_evaluate
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.sampling import SamplingConfig
from trl_rrtf.sampling.engines.transformers import TransformersSampler


class PassAtKCallback(TrainerCallback):
    """Samples programs for some problems at every evaluation, judges them, and logs `eval_pass@k`.

    Works with every `transformers.Trainer`. The metrics can choose the best checkpoint (`metric_for_best_model="eval_pass@1"`);
    candidates and verdicts are kept in `pass_at_k/step-N.*` of the run's folder. On several processes the main one samples, so
    the model must be whole on it: FSDP and ZeRO-3 are refused; evaluate their checkpoints with `trl-rrtf evaluate`.

    ```python
    trainer.add_callback(PassAtKCallback(trainer, "problems.jsonl", SamplingConfig(model="", num_generations=4), k=(1, 4)))
    ```

    Args:
        trainer: The trainer; its model and tokenizer sample.
        problems: Problems with tests: a file, a Hub id or `humaneval`.
        sampling: How to sample; its `model` is only a name in the result.
        judging: How to judge.
        k: Values of k, none larger than `num_generations`.
        limit: Only the first so many problems.

    Raises:
        ConfigError: The model is sharded, or a k is too large.
    """

    def __init__(
        self,
        trainer: Trainer,
        problems: str,
        sampling: SamplingConfig,
        judging: JudgeConfig | None = None,
        k: tuple[int, ...] = (1,),
        limit: int | None = None,
    ) -> None:
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ConfigError(
                "`trainer`: its model is sharded over the processes, so it cannot sample here; evaluate its checkpoints with "
                "`trl-rrtf evaluate`"
            )
        if max(k) > sampling.num_generations:
            raise ConfigError(f"`k`: {max(k)} is more than `num_generations` ({sampling.num_generations}); sample more")
        self._trainer = trainer
        self._problems, self._limit, self._k = problems, limit, k
        self._sampling, self._judging = sampling, judging or JudgeConfig()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measures; the other processes wait."""
        if state.is_world_process_zero:
            pass_at_k = self._measure(Path(args.output_dir) / "pass_at_k" / f"step-{state.global_step}.json")
            kwargs.get("metrics", {}).update(pass_at_k)
            self._trainer.log(pass_at_k)
        self._trainer.accelerator.wait_for_everyone()

    def _measure(self, output: Path) -> dict[str, float]:
        output.parent.mkdir(parents=True, exist_ok=True)
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        was_training = model.training
        sampler = TransformersSampler(model.eval(), self._trainer.processing_class)
        arguments = EvaluateArguments(
            input=self._problems, output=str(output), limit=self._limit, k=list(self._k), overwrite=True
        )
        try:
            summary = run_evaluate(arguments, self._sampling, self._judging, sampler)
        finally:
            model.train(was_training)
        return {f"eval_pass@{k}": interval.mean for k, interval in summary.pass_at_k.items()}
