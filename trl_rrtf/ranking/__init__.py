"""From verdicts and sources to scores and ranked groups: rules, filters, data card."""

from trl_rrtf.ranking.config import PASSED_SCORE, RankArguments, RankConfig
from trl_rrtf.ranking.scores import rank_group, score
from trl_rrtf.ranking.stage import RankSummary, run_rank

__all__ = ["PASSED_SCORE", "RankArguments", "RankConfig", "RankSummary", "rank_group", "run_rank", "score"]
