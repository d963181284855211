"""What happened when a candidate met the tests: verdicts from real, contained processes. Never imports torch."""

from trl_rrtf.judging.config import JudgeArguments, JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.judging.stage import run_judge

__all__ = ["Judge", "JudgeArguments", "JudgeConfig", "run_judge"]
