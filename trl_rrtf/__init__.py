"""RRTF (rank responses to align test and teacher feedback) as an extension of Hugging Face TRL.

The names in `__all__` are the public API; each is imported when it is first used, so `import trl_rrtf` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl_rrtf.errors import ClusterError as ClusterError
    from trl_rrtf.errors import ConfigError as ConfigError
    from trl_rrtf.errors import JudgeError as JudgeError
    from trl_rrtf.errors import LoadError as LoadError
    from trl_rrtf.errors import OutputError as OutputError
    from trl_rrtf.errors import RowError as RowError
    from trl_rrtf.errors import TrlRrtfError as TrlRrtfError
    from trl_rrtf.evaluation.callback import PassAtKCallback as PassAtKCallback
    from trl_rrtf.evaluation.compare import Comparison as Comparison
    from trl_rrtf.evaluation.compare import run_compare as run_compare
    from trl_rrtf.evaluation.config import CompareArguments as CompareArguments
    from trl_rrtf.evaluation.config import EvaluateArguments as EvaluateArguments
    from trl_rrtf.evaluation.config import SelectArguments as SelectArguments
    from trl_rrtf.evaluation.config import SelectConfig as SelectConfig
    from trl_rrtf.evaluation.pass_at_k import pass_at_k as pass_at_k
    from trl_rrtf.evaluation.repairs import after_repairs as after_repairs
    from trl_rrtf.evaluation.result import Evaluation as Evaluation
    from trl_rrtf.evaluation.select import SelectSummary as SelectSummary
    from trl_rrtf.evaluation.select import run_select as run_select
    from trl_rrtf.evaluation.stage import EvaluateSummary as EvaluateSummary
    from trl_rrtf.evaluation.stage import run_evaluate as run_evaluate
    from trl_rrtf.evaluation.statistics import Interval as Interval
    from trl_rrtf.evolving.config import EvolveArguments as EvolveArguments
    from trl_rrtf.evolving.config import EvolveConfig as EvolveConfig
    from trl_rrtf.evolving.config import TeacherConfig as TeacherConfig
    from trl_rrtf.evolving.stage import EvolveSummary as EvolveSummary
    from trl_rrtf.evolving.stage import run_evolve as run_evolve
    from trl_rrtf.export.config import ExportArguments as ExportArguments
    from trl_rrtf.export.config import ExportConfig as ExportConfig
    from trl_rrtf.export.stage import ExportSummary as ExportSummary
    from trl_rrtf.export.stage import run_export as run_export
    from trl_rrtf.judging.config import JudgeArguments as JudgeArguments
    from trl_rrtf.judging.config import JudgeConfig as JudgeConfig
    from trl_rrtf.judging.failures import Failure as Failure
    from trl_rrtf.judging.failures import first_failure as first_failure
    from trl_rrtf.judging.isolation import Isolation as Isolation
    from trl_rrtf.judging.judge import Judge as Judge
    from trl_rrtf.judging.observation import Observation as Observation
    from trl_rrtf.judging.stage import JudgeSummary as JudgeSummary
    from trl_rrtf.judging.stage import run_judge as run_judge
    from trl_rrtf.models.onnx_causal_lm import OnnxCausalLM as OnnxCausalLM
    from trl_rrtf.pipeline.config import PipelineConfig as PipelineConfig
    from trl_rrtf.pipeline.config import load_pipeline_config as load_pipeline_config
    from trl_rrtf.pipeline.results import PipelineResults as PipelineResults
    from trl_rrtf.pipeline.run import run_pipeline as run_pipeline
    from trl_rrtf.problems.config import FilterArguments as FilterArguments
    from trl_rrtf.problems.config import FilterConfig as FilterConfig
    from trl_rrtf.problems.loaders import load_problems as load_problems
    from trl_rrtf.problems.stage import FilterSummary as FilterSummary
    from trl_rrtf.problems.stage import run_filter as run_filter
    from trl_rrtf.publishing.config import PushConfig as PushConfig
    from trl_rrtf.publishing.stage import PushSummary as PushSummary
    from trl_rrtf.publishing.stage import run_push as run_push
    from trl_rrtf.ranking.config import RankArguments as RankArguments
    from trl_rrtf.ranking.config import RankConfig as RankConfig
    from trl_rrtf.ranking.hub import push_ranked_groups as push_ranked_groups
    from trl_rrtf.ranking.scores import rank_group as rank_group
    from trl_rrtf.ranking.stage import RankSummary as RankSummary
    from trl_rrtf.ranking.stage import run_rank as run_rank
    from trl_rrtf.rewards.environment import UnitTestEnvironment as UnitTestEnvironment
    from trl_rrtf.rewards.environment import UnitTestEnvironmentFactory as UnitTestEnvironmentFactory
    from trl_rrtf.rewards.environment import unit_test_environment_reward as unit_test_environment_reward
    from trl_rrtf.rewards.unit_tests import AsyncUnitTestReward as AsyncUnitTestReward
    from trl_rrtf.rewards.unit_tests import UnitTestReward as UnitTestReward
    from trl_rrtf.rewards.unit_tests import unit_test_reward as unit_test_reward
    from trl_rrtf.rows.records import Candidate as Candidate
    from trl_rrtf.rows.records import CandidateGroup as CandidateGroup
    from trl_rrtf.rows.records import JudgedGroup as JudgedGroup
    from trl_rrtf.rows.records import Outcome as Outcome
    from trl_rrtf.rows.records import Problem as Problem
    from trl_rrtf.rows.records import RankedCandidate as RankedCandidate
    from trl_rrtf.rows.records import RankedGroup as RankedGroup
    from trl_rrtf.rows.records import UnitTest as UnitTest
    from trl_rrtf.rows.records import Verdict as Verdict
    from trl_rrtf.sampling.config import GenerateConfig as GenerateConfig
    from trl_rrtf.sampling.config import SampleArguments as SampleArguments
    from trl_rrtf.sampling.config import SamplingConfig as SamplingConfig
    from trl_rrtf.sampling.config import TeacherLogProbsArguments as TeacherLogProbsArguments
    from trl_rrtf.sampling.config import TeacherLogProbsConfig as TeacherLogProbsConfig
    from trl_rrtf.sampling.draws import Draws as Draws
    from trl_rrtf.sampling.draws import Sampler as Sampler
    from trl_rrtf.sampling.extraction import extract_program as extract_program
    from trl_rrtf.sampling.generate import GenerateSummary as GenerateSummary
    from trl_rrtf.sampling.generate import run_generate as run_generate
    from trl_rrtf.sampling.sampler import make_sampler as make_sampler
    from trl_rrtf.sampling.stage import SampleSummary as SampleSummary
    from trl_rrtf.sampling.stage import run_sample as run_sample
    from trl_rrtf.sampling.teacher_log_probs import TeacherLogProbsSummary as TeacherLogProbsSummary
    from trl_rrtf.sampling.teacher_log_probs import run_teacher_log_probs as run_teacher_log_probs
    from trl_rrtf.training.callbacks import RankedGroupsCallback as RankedGroupsCallback
    from trl_rrtf.training.collator import DataCollatorForRankedGroups as DataCollatorForRankedGroups
    from trl_rrtf.training.config import RRTFConfig as RRTFConfig
    from trl_rrtf.training.options import TrainArguments as TrainArguments
    from trl_rrtf.training.stage import TrainSummary as TrainSummary
    from trl_rrtf.training.stage import run_train as run_train
    from trl_rrtf.training.trainer import RRTFTrainer as RRTFTrainer

__version__ = "0.1.0"

_MODULES = {
    # Training
    "trl_rrtf.training.trainer": ("RRTFTrainer",),
    "trl_rrtf.training.config": ("RRTFConfig",),
    "trl_rrtf.training.collator": ("DataCollatorForRankedGroups",),
    "trl_rrtf.training.callbacks": ("RankedGroupsCallback",),
    "trl_rrtf.evaluation.callback": ("PassAtKCallback",),
    "trl_rrtf.training.stage": (
        "run_train",
        "TrainSummary",
    ),
    "trl_rrtf.training.options": ("TrainArguments",),
    # Rows
    "trl_rrtf.rows.records": (
        "Problem",
        "UnitTest",
        "Candidate",
        "CandidateGroup",
        "Verdict",
        "Outcome",
        "JudgedGroup",
        "RankedCandidate",
        "RankedGroup",
    ),
    # Problems
    "trl_rrtf.problems.loaders": ("load_problems",),
    "trl_rrtf.problems.stage": (
        "run_filter",
        "FilterSummary",
    ),
    "trl_rrtf.problems.config": (
        "FilterArguments",
        "FilterConfig",
    ),
    "trl_rrtf.evolving.stage": (
        "run_evolve",
        "EvolveSummary",
    ),
    "trl_rrtf.evolving.config": (
        "EvolveArguments",
        "EvolveConfig",
        "TeacherConfig",
    ),
    # Sampling
    "trl_rrtf.sampling.stage": (
        "run_sample",
        "SampleSummary",
    ),
    "trl_rrtf.sampling.config": (
        "SampleArguments",
        "SamplingConfig",
        "TeacherLogProbsArguments",
        "TeacherLogProbsConfig",
        "GenerateConfig",
    ),
    "trl_rrtf.sampling.draws": ("Draws", "Sampler"),
    "trl_rrtf.sampling.sampler": ("make_sampler",),
    "trl_rrtf.sampling.extraction": ("extract_program",),
    "trl_rrtf.sampling.teacher_log_probs": (
        "run_teacher_log_probs",
        "TeacherLogProbsSummary",
    ),
    "trl_rrtf.sampling.generate": (
        "run_generate",
        "GenerateSummary",
    ),
    "trl_rrtf.models.onnx_causal_lm": ("OnnxCausalLM",),
    # Judging
    "trl_rrtf.judging.judge": ("Judge",),
    "trl_rrtf.judging.stage": (
        "run_judge",
        "JudgeSummary",
    ),
    "trl_rrtf.judging.config": (
        "JudgeArguments",
        "JudgeConfig",
    ),
    "trl_rrtf.judging.isolation": ("Isolation",),
    "trl_rrtf.judging.observation": ("Observation",),
    "trl_rrtf.judging.failures": (
        "Failure",
        "first_failure",
    ),
    "trl_rrtf.rewards.environment": (
        "UnitTestEnvironment",
        "UnitTestEnvironmentFactory",
        "unit_test_environment_reward",
    ),
    "trl_rrtf.rewards.unit_tests": (
        "UnitTestReward",
        "AsyncUnitTestReward",
        "unit_test_reward",
    ),
    # Ranking
    "trl_rrtf.ranking.stage": (
        "run_rank",
        "RankSummary",
    ),
    "trl_rrtf.ranking.config": (
        "RankArguments",
        "RankConfig",
    ),
    "trl_rrtf.ranking.scores": ("rank_group",),
    "trl_rrtf.ranking.hub": ("push_ranked_groups",),
    # Evaluation
    "trl_rrtf.evaluation.stage": (
        "run_evaluate",
        "EvaluateSummary",
    ),
    "trl_rrtf.evaluation.config": (
        "EvaluateArguments",
        "CompareArguments",
        "SelectArguments",
        "SelectConfig",
    ),
    "trl_rrtf.evaluation.select": (
        "run_select",
        "SelectSummary",
    ),
    "trl_rrtf.evaluation.result": ("Evaluation",),
    "trl_rrtf.evaluation.statistics": ("Interval",),
    "trl_rrtf.evaluation.compare": (
        "run_compare",
        "Comparison",
    ),
    "trl_rrtf.evaluation.pass_at_k": ("pass_at_k",),
    "trl_rrtf.evaluation.repairs": ("after_repairs",),
    # Export
    "trl_rrtf.export.stage": (
        "run_export",
        "ExportSummary",
    ),
    "trl_rrtf.export.config": (
        "ExportArguments",
        "ExportConfig",
    ),
    # Publishing
    "trl_rrtf.publishing.stage": (
        "run_push",
        "PushSummary",
    ),
    "trl_rrtf.publishing.config": ("PushConfig",),
    # Pipeline
    "trl_rrtf.pipeline.run": ("run_pipeline",),
    "trl_rrtf.pipeline.config": (
        "PipelineConfig",
        "load_pipeline_config",
    ),
    "trl_rrtf.pipeline.results": ("PipelineResults",),
    # Errors
    "trl_rrtf.errors": (
        "TrlRrtfError",
        "ConfigError",
        "RowError",
        "LoadError",
        "OutputError",
        "JudgeError",
        "ClusterError",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module `trl_rrtf` has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
