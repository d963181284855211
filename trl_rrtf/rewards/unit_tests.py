"""The rewards: verdicts of the judge as numbers, and what TRL's logs say of them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.ranking import RankConfig
from trl_rrtf.rewards.batch import read_batch
from trl_rrtf.rewards.credit import NO_PROGRAM, Credit, count_unjudged, log_verdicts
from trl_rrtf.rewards.process_judge import ProcessJudge
from trl_rrtf.rows.records import Verdict


class _UnitTests:
    """What the synchronous and the asynchronous reward share."""

    def __init__(
        self,
        judge_config: JudgeConfig | None = None,
        rank_config: RankConfig | None = None,
        credit: str = "outcome",
        name: str = "unit_test_reward",
    ) -> None:
        self._credit = Credit(credit, rank_config)
        self.__name__ = name  # what TRL calls the reward in its logs
        self._process_judge = ProcessJudge(JudgeConfig() if judge_config is None else judge_config)

    @property
    def credit(self) -> str:
        """What is paid for."""
        return self._credit.credit

    @property
    def rank_config(self) -> RankConfig:
        """The scores of outcomes."""
        return self._credit.rank_config

    @property
    def judge_config(self) -> JudgeConfig:
        """Limits of the candidates' processes."""
        return self._process_judge.config

    @property
    def unjudged(self) -> int:
        """How many completions could not be judged in this process."""
        return self._process_judge.unjudged

    @property
    def judge(self) -> Judge:
        """The judge of this process, opened by its first use.

        Raises:
            JudgeError: The system is not Linux, or lacks what `required_isolation` names.
        """
        return self._process_judge.opened()

    def close(self) -> None:
        """Ends the judge of this process now, and not with the process; the next call opens a new one."""
        self._process_judge.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.judge_config}, {self.rank_config}, credit={self.credit!r}, name={self.__name__!r})"

    def _verdicts(self, completions: Sequence[Any], columns: Mapping[str, Sequence[Any] | None]) -> list[Verdict]:
        """Judges the programs; those of a problem one after the other, which is fastest."""
        items = read_batch(completions, columns)
        verdicts = [NO_PROGRAM] * len(items)
        order = sorted((i for i, (_, program) in enumerate(items) if program.strip()), key=lambda i: items[i][0].problem_id)
        judged = self.judge.judge_many(items[i] for i in order) if order else ()
        for i, verdict in zip(order, judged, strict=True):
            verdicts[i] = verdict
        return verdicts

    def _rewards(
        self,
        verdicts: Sequence[Verdict],
        log_metric: Callable[[str, float], None] | None,
        log_extra: Callable[[str, list[Any]], None] | None,
    ) -> list[float | None]:
        """The rewards; outcomes go to the logs."""
        log_verdicts(self.__name__, verdicts, log_metric, log_extra)
        count_unjudged(self.__name__, self._process_judge, verdicts)
        return [self._credit.reward(verdict) for verdict in verdicts]


class UnitTestReward(_UnitTests):
    """Rewards completions by their unit tests: a `reward_funcs` callable for TRL's trainers that sample online.

    ```python
    trainer = GRPOTrainer(model, reward_funcs=UnitTestReward(JudgeConfig(timeout=3)), train_dataset=problems)
    ```

    The data set has the columns of problem rows: `prompt`, `tests`, and where they have one `entry_point` and `setup_code`.
    The judge is opened by the first call, in the process that makes it, and closed with that process. The object can be
    pickled, copied, forked and called from several threads.

    | `credit` | compile error, no program | runtime error | fails all tests | passes k of n | passes |
    |---|---|---|---|---|---|
    | `outcome` | 0 | 1/3 | 1/2 | 2/3 + k/n/6 | 1 |
    | `tests` | 0 | 0 | 0 | k/n | 1 |
    | `pass` | 0 | 0 | 0 | 0 | 1 |

    Where the judge itself failed the reward is None, which TRL leaves out.

    Args:
        judge_config: Limits of the candidates' processes; by default `JudgeConfig()`. Without `num_workers` the processes of
            a launcher share the cores of their machine. `max_infrastructure_fraction` stops nothing here.
        rank_config: The scores of `credit="outcome"`, which are divided by that of a pass; by default those of the table, with
            a partial credit of 0.5.
        credit: What is paid for: the class of the `outcome`, each of the `tests`, or a `pass` alone.
        name: What TRL calls the reward in its logs.

    Raises:
        ConfigError: `credit` is none of those, or `rank_config` is given to one that scores no outcomes.
    """

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        tests: Sequence[Any] | None = None,
        entry_point: Sequence[str | None] | None = None,
        setup_code: Sequence[str | None] | None = None,
        problem_id: Sequence[Any] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Judges a batch; TRL calls it by keywords.

        Args:
            prompts: Texts or messages.
            completions: Texts or messages, whose content is text, a list of text parts or nothing. The program is taken out of
                the model's own messages as in the `sample` stage; of their thinking only where they have none.
            tests: The `tests` column of problem rows.
            entry_point: That column of problem rows.
            setup_code: That column of problem rows.
            problem_id: That column of problem rows, for error messages.
            log_metric: TRL's hook; it is told the share of each outcome, as `unit_test_reward/passed`.
            log_extra: TRL's hook; `unit_test_reward_outcome` and `unit_test_reward_detail` for its table of completions.

        Returns:
            A reward for each completion, or None where the judge itself failed.

        Raises:
            RowError: The columns are not those of problem rows, or a completion is not text.
            JudgeError: The judge cannot be opened here.
        """
        columns = {"prompts": prompts, "tests": tests, "entry_point": entry_point}
        columns |= {"setup_code": setup_code, "problem_id": problem_id}
        return self._rewards(self._verdicts(completions, columns), log_metric, log_extra)


class AsyncUnitTestReward(_UnitTests):
    """[`UnitTestReward`][trl_rrtf.UnitTestReward] as a coroutine function, which TRL awaits.

    `GRPOTrainer` and `RLOOTrainer` run the awaitable ones of several rewards side by side, and `AsyncGRPOTrainer` goes on
    generating meanwhile. It takes the synchronous one as well, in a thread; `OnlineDPOTrainer` takes only that.

    Args:
        judge_config: As there.
        rank_config: As there.
        credit: As there.
        name: As there.

    Raises:
        ConfigError: As there.
    """

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        tests: Sequence[Any] | None = None,
        entry_point: Sequence[str | None] | None = None,
        setup_code: Sequence[str | None] | None = None,
        problem_id: Sequence[Any] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Judges a batch in a thread; arguments, results and errors as those of the synchronous one."""
        columns = {"prompts": prompts, "tests": tests, "entry_point": entry_point}
        columns |= {"setup_code": setup_code, "problem_id": problem_id}
        return self._rewards(await asyncio.to_thread(self._verdicts, completions, columns), log_metric, log_extra)


def unit_test_reward(
    prompts: Sequence[Any], completions: Sequence[Any], tests: Sequence[Any] | None = None, **columns: Any
) -> list[float | None]:
    """[`UnitTestReward`][trl_rrtf.UnitTestReward] with its defaults, as a plain function.

    ```python
    trainer = GRPOTrainer(model, reward_funcs=unit_test_reward, train_dataset=problems)
    ```

    Args:
        prompts: Texts or messages.
        completions: Texts or messages.
        tests: The `tests` column of problem rows.
        columns: `entry_point` and `setup_code` of problem rows, where the data set has them, and what TRL adds.

    Returns:
        For each completion 0 for a compile error, 1/3 for a runtime error, 1/2 for one that fails all tests, 2/3 to 5/6 for a
        partial one, 1 for a pass; None, which TRL leaves out, where the judge itself failed.

    Raises:
        RowError: The columns are not those of problem rows, or a completion is not text.
        JudgeError: The judge cannot be opened here.
    """
    return _default_reward()(prompts, completions, tests, **columns)


@functools.cache
def _default_reward() -> UnitTestReward:
    return UnitTestReward()
