"""Benchmarks and pass@k; samples and judges with the stages' own parts, no second grader."""

from trl_rrtf.evaluation.compare import Comparison, run_compare
from trl_rrtf.evaluation.config import CompareArguments, EvaluateArguments, SelectArguments, SelectConfig
from trl_rrtf.evaluation.pass_at_k import pass_at_k
from trl_rrtf.evaluation.result import Evaluation
from trl_rrtf.evaluation.select import SelectSummary, run_select
from trl_rrtf.evaluation.stage import EvaluateSummary, run_evaluate
from trl_rrtf.evaluation.statistics import Interval

__all__ = [
    "CompareArguments",
    "Comparison",
    "EvaluateArguments",
    "EvaluateSummary",
    "Evaluation",
    "Interval",
    "SelectArguments",
    "SelectConfig",
    "SelectSummary",
    "pass_at_k",
    "run_compare",
    "run_evaluate",
    "run_select",
]
