"""Unit tests as a reward for TRL's trainers that sample online, such as `GRPOTrainer`."""

from __future__ import annotations

from trl_rrtf.rewards.unit_tests import AsyncUnitTestReward, UnitTestReward, unit_test_reward

__all__ = ["AsyncUnitTestReward", "UnitTestReward", "unit_test_reward"]
