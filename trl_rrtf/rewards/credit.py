"""What a verdict is worth, and what TRL's logs say of a batch of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.ranking import PASSED_SCORE, RankConfig, score
from trl_rrtf.rewards.process_judge import ProcessJudge
from trl_rrtf.rows.records import Outcome, Verdict

logger = logging.getLogger(__name__)

CREDITS = ("outcome", "tests", "pass")
"""What a program is paid for; see [`UnitTestReward`][trl_rrtf.UnitTestReward]."""

NO_PROGRAM = Verdict(outcome=Outcome.COMPILE_ERROR, detail="no program in the completion")
"""The judge would run an empty program, which fails as mildly as one that does something."""


class Credit:
    """A number for a verdict.

    Args:
        credit: One of [`CREDITS`][trl_rrtf.rewards.credit.CREDITS].
        rank_config: The scores of `credit="outcome"`.

    Raises:
        ConfigError: `credit` is none of those, or `rank_config` is given to one that scores no outcomes.
    """

    def __init__(self, credit: str = "outcome", rank_config: RankConfig | None = None) -> None:
        if credit not in CREDITS:
            raise ConfigError(f"`credit`: expected one of {', '.join(CREDITS)}, got {credit!r}")
        if rank_config is not None and credit != "outcome":
            raise ConfigError(f"`rank_config`: it scores outcomes, and `credit={credit!r}` does not; leave one of the two out")
        if not isinstance(rank_config, RankConfig | None):
            raise ConfigError(f"`rank_config`: expected a RankConfig, got {type(rank_config).__name__} {rank_config!r}")
        self.credit = credit
        self.rank_config = rank_config or RankConfig(partial_credit=0.5)

    def reward(self, verdict: Verdict) -> float | None:
        """The reward, from 0 to 1; None where the judge itself failed."""
        if verdict.outcome is Outcome.INFRASTRUCTURE:
            return None
        if self.credit == "outcome":
            return score(verdict, "student", self.rank_config) / PASSED_SCORE
        if self.credit == "pass" or verdict.outcome is Outcome.PASSED:
            return float(verdict.outcome is Outcome.PASSED)
        # What passed all that it reached and did not get to the end has failed there.
        return verdict.passed / max(verdict.total, verdict.passed + 1)


def log_verdicts(
    name: str,
    verdicts: Sequence[Verdict | None],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> None:
    """Gives TRL the share of each outcome, and two columns for its table of completions; None is one of another kind."""
    outcomes = Counter(verdict.outcome for verdict in verdicts if verdict is not None)
    if log_metric is not None and outcomes:
        for outcome in Outcome:
            log_metric(f"{name}/{outcome.label}", outcomes[outcome] / outcomes.total())
    if log_extra is not None:
        log_extra(f"{name}_outcome", [f"{one.outcome.label} {one.passed}/{one.total}" if one else "" for one in verdicts])
        log_extra(f"{name}_detail", [one.detail if one else "" for one in verdicts])


def count_unjudged(name: str, judge: ProcessJudge, verdicts: Sequence[Verdict], owner: str = "reward") -> None:
    """Counts what could not be judged in this process, and says so the first time; `owner` is what has the counter."""
    unjudged = [verdict for verdict in verdicts if verdict.outcome is Outcome.INFRASTRUCTURE]
    if judge.count_unjudged(len(unjudged)):
        logger.warning(
            "%s: %d of %d completions could not be judged (%s); their reward is None, which TRL leaves out "
            "(`OnlineDPOTrainer` takes it for 0). Said once: `unjudged` of the %s counts them",
            name,
            len(unjudged),
            len(verdicts),
            unjudged[0].detail,
            owner,
        )
