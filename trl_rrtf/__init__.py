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
    from trl_rrtf.evaluation.pass_at_k import pass_at_k as pass_at_k
    from trl_rrtf.groups import CandidateGroup as CandidateGroup
    from trl_rrtf.groups import JudgedGroup as JudgedGroup
    from trl_rrtf.groups import Outcome as Outcome
    from trl_rrtf.groups import Problem as Problem
    from trl_rrtf.groups import RankedGroup as RankedGroup
    from trl_rrtf.groups import UnitTest as UnitTest
    from trl_rrtf.groups import Verdict as Verdict
    from trl_rrtf.hub import push_ranked_groups as push_ranked_groups
    from trl_rrtf.judging.config import JudgeConfig as JudgeConfig
    from trl_rrtf.judging.isolation import Isolation as Isolation
    from trl_rrtf.judging.judge import Judge as Judge
    from trl_rrtf.problems.loaders import load_problems as load_problems
    from trl_rrtf.ranking import RankConfig as RankConfig
    from trl_rrtf.ranking import rank_group as rank_group
    from trl_rrtf.rewards import UnitTestReward as UnitTestReward
    from trl_rrtf.rewards import unit_test_reward as unit_test_reward
    from trl_rrtf.sampling.config import SamplingConfig as SamplingConfig
    from trl_rrtf.sampling.extraction import extract_program as extract_program
    from trl_rrtf.training.callbacks import RankedGroupsCallback as RankedGroupsCallback
    from trl_rrtf.training.collator import DataCollatorForRankedGroups as DataCollatorForRankedGroups
    from trl_rrtf.training.config import RRTFConfig as RRTFConfig
    from trl_rrtf.training.trainer import RRTFTrainer as RRTFTrainer

__version__ = "0.1.0"

_MODULES = {
    "trl_rrtf.errors": ("ClusterError", "ConfigError", "JudgeError", "LoadError", "OutputError", "RowError", "TrlRrtfError"),
    "trl_rrtf.evaluation.callback": ("PassAtKCallback",),
    "trl_rrtf.evaluation.pass_at_k": ("pass_at_k",),
    "trl_rrtf.groups": ("CandidateGroup", "JudgedGroup", "Outcome", "Problem", "RankedGroup", "UnitTest", "Verdict"),
    "trl_rrtf.hub": ("push_ranked_groups",),
    "trl_rrtf.judging.config": ("JudgeConfig",),
    "trl_rrtf.judging.isolation": ("Isolation",),
    "trl_rrtf.judging.judge": ("Judge",),
    "trl_rrtf.problems.loaders": ("load_problems",),
    "trl_rrtf.ranking": ("RankConfig", "rank_group"),
    "trl_rrtf.rewards": ("UnitTestReward", "unit_test_reward"),
    "trl_rrtf.sampling.config": ("SamplingConfig",),
    "trl_rrtf.sampling.extraction": ("extract_program",),
    "trl_rrtf.training.callbacks": ("RankedGroupsCallback",),
    "trl_rrtf.training.collator": ("DataCollatorForRankedGroups",),
    "trl_rrtf.training.config": ("RRTFConfig",),
    "trl_rrtf.training.trainer": ("RRTFTrainer",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module `trl_rrtf` has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
