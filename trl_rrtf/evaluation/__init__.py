"""Benchmarks and pass@k; samples and judges with the stages' own parts, no second grader."""

from trl_rrtf.evaluation.compare import CompareArguments, run_compare
from trl_rrtf.evaluation.config import EvaluateArguments
from trl_rrtf.evaluation.pass_at_k import pass_at_k
from trl_rrtf.evaluation.stage import run_evaluate

__all__ = ["CompareArguments", "EvaluateArguments", "pass_at_k", "run_compare", "run_evaluate"]
