"""Unit tests as a reward for TRL's trainers that sample online, and as an environment with repair turns."""

from __future__ import annotations

from trl_rrtf.rewards.environment import UnitTestEnvironment, UnitTestEnvironmentFactory, unit_test_environment_reward
from trl_rrtf.rewards.unit_tests import AsyncUnitTestReward, UnitTestReward, unit_test_reward

__all__ = [
    "AsyncUnitTestReward",
    "UnitTestEnvironment",
    "UnitTestEnvironmentFactory",
    "UnitTestReward",
    "unit_test_environment_reward",
    "unit_test_reward",
]
