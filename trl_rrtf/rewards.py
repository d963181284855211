"""Unit tests as a reward for TRL's trainers that sample online, such as `GRPOTrainer`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from trl_rrtf.errors import RowError
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.ranking import PASSED_SCORE, RankConfig, score
from trl_rrtf.rows import checks
from trl_rrtf.rows.records import Outcome, Problem
from trl_rrtf.sampling.extraction import extract_program


class UnitTestReward:
    """A `reward_funcs` callable with settings of its own; see [`unit_test_reward`][trl_rrtf.unit_test_reward].

    Args:
        judge_config: Limits of the candidates' processes; by default `JudgeConfig()`.
        rank_config: The scores of the outcomes; by default partial credit of 0.5, so that each further test is worth something.
    """

    def __init__(self, judge_config: JudgeConfig | None = None, rank_config: RankConfig | None = None) -> None:
        self.__name__ = "unit_test_reward"  # what TRL calls the reward in its logs
        self.judge = Judge(judge_config)
        self.rank_config = rank_config or RankConfig(partial_credit=0.5)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        tests: Sequence[Any],
        entry_point: Sequence[str | None] | None = None,
        setup_code: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Judges the completions, see [`unit_test_reward`][trl_rrtf.unit_test_reward]."""
        texts = [_text(completion, f"row {i} of the batch") for i, completion in enumerate(completions)]
        nothing: list[None] = [None] * len(prompts)
        rows = zip(prompts, tests, entry_point or nothing, setup_code or nothing, strict=True)
        problems = [
            Problem.from_row(
                {"problem_id": str(i), "prompt": prompt, "tests": list(test), "entry_point": entry, "setup_code": setup},
                f"row {i} of the batch",
            )
            for i, (prompt, test, entry, setup) in enumerate(rows)
        ]
        # The rows of a problem follow each other and are equal; one object for them lets their programs share a checker.
        for i in range(1, len(problems)):
            problems[i].problem_id = problems[i - 1].problem_id
            if problems[i] == problems[i - 1]:
                problems[i] = problems[i - 1]
            else:
                problems[i].problem_id = str(i)
        programs = [extract_program(text, problem) for text, problem in zip(texts, problems, strict=True)]
        verdicts = self.judge.judge_many(zip(problems, programs, strict=True))
        return [
            None if verdict.outcome is Outcome.INFRASTRUCTURE else score(verdict, "student", self.rank_config) / PASSED_SCORE
            for verdict in verdicts
        ]

    def close(self) -> None:
        """Ends the judge's workers."""
        self.judge.close()


def unit_test_reward(
    prompts: Sequence[Any], completions: Sequence[Any], tests: Sequence[Any], **columns: Any
) -> list[float | None]:
    """Rewards completions by their unit tests: a TRL `reward_funcs` callable.

    ```python
    trainer = GRPOTrainer(model, reward_funcs=unit_test_reward, train_dataset=problems)
    ```

    Args:
        prompts: Texts or messages.
        completions: Texts or messages, whose content is text or a list of text parts; the program is taken out of each as in
            the `sample` stage.
        tests: The `tests` column of problem rows.
        columns: `entry_point` and `setup_code` of problem rows, where the data set has them; all else is ignored.

    Returns:
        For each completion the score of its outcome divided by that of a pass: 0 for a compile error, 1/3 for a runtime error,
        1/2 for one that fails all tests, 2/3 to 5/6 for a partial one, 1 for a pass; None, which TRL leaves out, where the
        judge itself failed.

    Raises:
        RowError: The columns are not those of problem rows, or a completion is not text.
    """
    return _default_reward()(prompts, completions, tests, **columns)


@functools.cache
def _default_reward() -> UnitTestReward:
    return UnitTestReward()


def _text(completion: Any, where: str) -> str:
    """The text of a completion, which is a string or a list of messages."""
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, list | tuple):
        raise RowError(where, "completions", f"expected text or messages (role, content), got {checks.shown(completion)}")
    return "".join(checks.message_text(message, where, f"completions[{i}]") for i, message in enumerate(completion))
