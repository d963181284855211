"""What a run found, before and after training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trl_rrtf.evaluation.statistics import Interval
from trl_rrtf.training.stage import TrainSummary

PassAtK = dict[str, dict[int, Interval]]
"""Benchmark -> k -> mean over its problems."""


@dataclass
class Round:
    """One round of sampling, ranking and training.

    Attributes:
        model: Folder of its checkpoint.
        pass_at_k: Its evaluation.
        training: What training logged.
    """

    model: str
    pass_at_k: PassAtK
    training: TrainSummary


@dataclass
class PipelineResults:
    """Results of a run.

    Attributes:
        before: Evaluation of the student as it was given.
        rounds: The rounds.
        best: The round whose model is the result.
        chosen_on: The benchmark that chose the best of several rounds, whose figure after training is therefore biased upwards;
            None where there was nothing to choose.
        seconds: Step -> what it took.
    """

    before: PassAtK
    rounds: list[Round]
    best: Round
    chosen_on: str | None
    seconds: dict[str, float]

    @property
    def after(self) -> PassAtK:
        """Evaluation of the trained model."""
        return self.best.pass_at_k

    @property
    def heldout_before(self) -> dict[str, float]:
        """Ranking metrics on held-out groups at the first evaluation: before training, with `eval_on_start`."""
        return self.rounds[0].training.eval_first

    @property
    def heldout_after(self) -> dict[str, float]:
        """The same, at the last evaluation of the best round's training."""
        return self.best.training.eval_last

    def to_json(self) -> dict[str, Any]:
        """As it stands in `results.json`."""
        return {
            "pass@k before": _as_json(self.before),
            "pass@k after": _as_json(self.after),
            "held-out groups before": self.heldout_before,
            "held-out groups after": self.heldout_after,
            "model": self.best.model,
            "rounds": [{"model": entry.model, "pass@k": _as_json(entry.pass_at_k)} for entry in self.rounds],
            "best round chosen on": self.chosen_on,
            "seconds": self.seconds,
        }


def _as_json(pass_at_k: PassAtK) -> dict[str, Any]:
    return {benchmark: {f"pass@{k}": asdict(interval) for k, interval in by_k.items()} for benchmark, by_k in pass_at_k.items()}
