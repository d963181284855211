"""The judge as an environment in which a model runs the public tests of a problem, repairs its program, and submits it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from trl_rrtf.errors import ConfigError
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.failures import first_failure
from trl_rrtf.judging.judge import Judge
from trl_rrtf.judging.preparation import prepare
from trl_rrtf.ranking import RankConfig
from trl_rrtf.rewards.batch import read_problem
from trl_rrtf.rewards.credit import NO_PROGRAM, Credit, count_unjudged, log_verdicts
from trl_rrtf.rewards.process_judge import ProcessJudge
from trl_rrtf.rows.public_tests import public_tests
from trl_rrtf.rows.records import Outcome, Problem, UnitTest, Verdict
from trl_rrtf.sampling.extraction import extract_program

logger = logging.getLogger(__name__)

_NAME = "unit_test_environment_reward"


class UnitTestEnvironment:
    """An episode of TRL's `environment_factory`: a model runs the public tests, repairs its program, and submits it.

    ```python
    trainer = GRPOTrainer(
        model,
        reward_funcs=unit_test_environment_reward,
        args=GRPOConfig(max_completion_length=2048, max_tool_calling_iterations=5),
        train_dataset=problems,
        environment_factory=UnitTestEnvironmentFactory(public_tests=2),
    )
    ```

    The data set has the columns of problem rows (`tests`, `entry_point`, `setup_code`, `public_tests`), and a `prompt` of
    messages. Of the public tests the model sees the first that fails: the test, what was expected, what the program gave. Of
    the hidden ones it sees nothing, not how many pass; the reward is made by all tests of the row, and only for what was
    submitted: an episode without `submit` is worth what an empty answer is. `submit` ends the episode.

    Every public method but `reset` is a tool, and its docstring is what the model is told.

    Args:
        factory: Settings and judge; by default those of `UnitTestEnvironmentFactory()`, shared by the whole process.

    Attributes:
        programs: The programs whose public tests ran, in order.
    """

    def __init__(self, factory: UnitTestEnvironmentFactory | None = None) -> None:
        self._factory = factory or _default_factory()
        self._problem: Problem | None = None
        self._begin()

    def _begin(self) -> None:
        self._submission: tuple[Problem, str] | None = None
        self.programs: list[str] = []
        self._first_failed = False
        self._verdict: Verdict | None = None

    @property
    def submitted(self) -> str | None:
        """The program that was submitted, or None."""
        return None if self._submission is None else self._submission[1]

    @property
    def verdict(self) -> Verdict:
        """What all tests of the problem say of the submitted program; judged when it is first asked for."""
        return judge_submissions([self])[0]

    def reset(self, **row: Any) -> None:
        """Begins an episode with the problem of a row; TRL calls it with every column of its data set.

        Args:
            row: `prompt`, `tests`, and where the data set has them `entry_point`, `setup_code`, `problem_id`, `public_tests`.

        Raises:
            RowError: The columns are not those of problem rows.
            ConfigError: The tests cannot be run.
            JudgeError: The judge cannot be opened here.
        """
        # What is raised by a tool TRL shows to the model and trains on: what is no model's fault is found here.
        self._problem = self._factory.read(row)
        self._begin()

    def run_public_tests(self, program: str) -> str:
        """Runs the public tests on a program, and shows the first one that fails.

        Args:
            program: The whole Python program.

        Returns:
            Whether all public tests pass; else the first that fails, what it expects and what the program gave.
        """
        problem, tests, program = self._asked(program)
        limit = self._factory.max_test_runs
        if not tests:
            raise ValueError("this problem has no public tests; submit the program")
        if len(self.programs) >= limit:
            raise ValueError(f"the public tests have run as often as they may ({limit}); submit the program")
        failure = first_failure(self._factory.judge, problem, program, tests)
        if failure is not None and failure.verdict.outcome is Outcome.INFRASTRUCTURE:
            count_unjudged(_NAME, self._factory.process_judge, [failure.verdict], "factory")
            raise RuntimeError("the tests could not be run here, which says nothing of the program; try again")
        self.programs.append(program)
        if len(self.programs) == 1:
            self._first_failed = failure is not None
        if failure is not None:
            return failure.text()
        return "The public test passes." if len(tests) == 1 else f"All {len(tests)} public tests pass."

    def submit(self, program: str) -> str:
        """Submits the final program, which ends the task. It is graded by hidden tests.

        Args:
            program: The whole Python program.

        Returns:
            That it was submitted.
        """
        problem, _, program = self._asked(program)
        self._submission = problem, program
        return "Submitted."

    def _asked(self, program: str) -> tuple[Problem, list[UnitTest], str]:
        """The problem, its public tests, and the program of a call."""
        if self._problem is None:
            raise ConfigError("`reset` was not called: an episode begins with the row of a problem")
        if self._submission is not None:
            raise ValueError("a program is submitted already; the task is over")
        if not isinstance(program, str) or not (extracted := extract_program(program, self._problem)).strip():
            raise ValueError("`program`: expected the text of a whole Python program")
        return self._problem, public_tests(self._problem, self._factory.public_tests), extracted

    @property
    def has_no_hidden_tests(self) -> bool:
        """Whether the model may see all tests of the problem."""
        problem = self._problem
        return problem is not None and len(public_tests(problem, self._factory.public_tests)) == len(problem.tests)

    @property
    def repaired(self) -> bool:
        """Whether the first program that was run failed a public test, and the submitted one passes every test."""
        return self._first_failed and self.verdict.outcome is Outcome.PASSED

    def __repr__(self) -> str:
        problem = self._problem and self._problem.problem_id
        runs, submitted = len(self.programs), self._submission is not None
        return f"{type(self).__name__}(problem={problem!r}, test_runs={runs}, submitted={submitted})"


class OwnRewardUnitTestEnvironment(UnitTestEnvironment):
    """A [`UnitTestEnvironment`][trl_rrtf.UnitTestEnvironment] that TRL asks for its reward: `owns_reward` of the factory."""

    def get_reward(self) -> float:
        """What the submitted program is worth, from 0 to 1; NaN, which TRL leaves out, where the judge itself failed."""
        reward = self._factory.credit.reward(self.verdict)
        return float("nan") if reward is None else reward


class UnitTestEnvironmentFactory:
    """Makes the environments of a `GRPOTrainer`, which share its settings and one judge per process.

    It can be pickled and copied. The judge is opened by the first episode, in the process where that begins, and closed with
    that process; `close`, or `with`, ends it earlier.

    Args:
        judge_config: Limits of the candidates' processes; by default `JudgeConfig()`.
        public_tests: How many tests of a row, from the first on, a model may see where the row has no column `public_tests`;
            by default those rows have none, and `run_public_tests` says so.
        max_test_runs: How often an episode may run the public tests. TRL's `max_tool_calling_iterations` bounds the turns: it
            needs one more than this, for `submit`.
        credit: What the reward pays for: `outcome`, `tests` or `pass`, as [`UnitTestReward`][trl_rrtf.UnitTestReward] has it.
        rank_config: The scores of `credit="outcome"`, as there.
        owns_reward: Whether the environments tell TRL their reward themselves (`get_reward`). `AsyncGRPOTrainer` needs that,
            for it gives a reward function no environments; then there is no `unit_test_environment_reward`, and none of its
            shares in the logs.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(
        self,
        judge_config: JudgeConfig | None = None,
        *,
        public_tests: int | None = None,
        max_test_runs: int = 3,
        credit: str = "outcome",
        rank_config: RankConfig | None = None,
        owns_reward: bool = False,
    ) -> None:
        if public_tests is not None and (type(public_tests) is not int or public_tests < 0):
            raise ConfigError(f"`public_tests`: expected a number of tests of 0 or more, or None, got {public_tests!r}")
        if type(max_test_runs) is not int or max_test_runs < 0:
            raise ConfigError(f"`max_test_runs`: expected a number of 0 or more, got {max_test_runs!r}")
        self.public_tests = public_tests
        self.max_test_runs = max_test_runs
        self.credit = Credit(credit, rank_config)
        self.owns_reward = owns_reward
        self.process_judge = ProcessJudge(JudgeConfig() if judge_config is None else judge_config)
        self._last: tuple[str, Problem] | None = None
        self._told = self._told_of_no_hidden = False

    def __call__(self) -> UnitTestEnvironment:
        """A new environment."""
        return OwnRewardUnitTestEnvironment(self) if self.owns_reward else UnitTestEnvironment(self)

    @property
    def judge(self) -> Judge:
        """The judge of this process, opened by its first use.

        Raises:
            JudgeError: The system is not Linux, or lacks what `required_isolation` names.
        """
        return self.process_judge.opened()

    @property
    def unjudged(self) -> int:
        """How many programs could not be judged in this process."""
        return self.process_judge.unjudged

    def read(self, row: Mapping[str, Any]) -> Problem:
        """The problem of a row, with all that could be wrong in it found out; equal rows in succession share it.

        Raises:
            RowError: The columns are not those of problem rows.
            ConfigError: The tests cannot be run.
            JudgeError: The judge cannot be opened here.
        """
        key, last = repr(row), self._last
        if last is not None and last[0] == key:
            return last[1]
        _ = self.judge
        problem = read_problem(row)
        prepare(problem)
        shown = len(public_tests(problem, self.public_tests))
        if shown == len(problem.tests) and not self._told_of_no_hidden:
            self._told_of_no_hidden = True
            logger.warning(
                "problem %r has no hidden tests: `run_public_tests` shows a model all %d of its tests (a `check` is one, with "
                "all its assertions), and the reward pays for these same tests. `%s/without_hidden_tests` of the logs has the "
                "share of such episodes. Said once",
                problem.problem_id,
                shown,
                _NAME,
            )
        if not shown and not self._told:
            self._told = True
            logger.warning(
                "problem %r has no public tests, so `run_public_tests` shows a model nothing of it; give the row a column "
                "`public_tests`, or the factory `public_tests=1`. Said once",
                problem.problem_id,
            )
        self._last = key, problem
        return problem

    def close(self) -> None:
        """Ends the judge of this process now, and not with the process; the next episode opens a new one."""
        self.process_judge.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@functools.cache
def _default_factory() -> UnitTestEnvironmentFactory:
    return UnitTestEnvironmentFactory()


def judge_submissions(environments: Sequence[UnitTestEnvironment]) -> list[Verdict]:
    """Judges what was submitted in a batch of episodes, side by side; what is judged already is not judged again."""
    waiting: dict[UnitTestEnvironmentFactory, list[UnitTestEnvironment]] = {}
    for environment in environments:
        if environment._verdict is None and environment._submission is not None:
            waiting.setdefault(environment._factory, []).append(environment)
    for factory, group in waiting.items():
        verdicts = list(factory.judge.judge_many(one._submission for one in group if one._submission is not None))
        for environment, verdict in zip(group, verdicts, strict=True):
            environment._verdict = verdict
        count_unjudged(_NAME, factory.process_judge, verdicts, "factory")
    return [environment._verdict or NO_PROGRAM for environment in environments]


def unit_test_environment_reward(
    environments: Sequence[Any] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **_: Any,
) -> list[float | None]:
    """The reward of episodes in [`UnitTestEnvironment`][trl_rrtf.UnitTestEnvironment]: what the submitted programs are worth.

    The logs have the share of each outcome (`unit_test_environment_reward/passed`), of the episodes that submitted
    (`/submitted`) and that repaired (`/repaired`: the first program that was run failed a public test, the submitted one
    passes all tests), and the mean number of times that the public tests ran (`/test_runs`).

    Args:
        environments: The environments of a batch; others than `UnitTestEnvironment` get None, which TRL leaves out.
        log_metric: TRL's hook for the logs.
        log_extra: TRL's hook for its table of completions.

    Returns:
        A reward from 0 to 1 for each environment, 0 without `submit`; None where the judge itself failed.

    Raises:
        ConfigError: There are no environments, or they tell TRL their reward themselves.
    """
    if environments is None:
        raise ConfigError(
            "`environments`: TRL gave none; pass `environment_factory=UnitTestEnvironmentFactory(...)` to `GRPOTrainer`. "
            "`AsyncGRPOTrainer` gives a reward function none: there `owns_reward=True` of the factory takes its place"
        )
    own = [one for one in environments if isinstance(one, UnitTestEnvironment)]
    if any(isinstance(one, OwnRewardUnitTestEnvironment) for one in own):
        raise ConfigError("`owns_reward`: the environments tell TRL their reward; leave `unit_test_environment_reward` out")
    judged = iter(judge_submissions(own))
    verdicts = [next(judged) if isinstance(one, UnitTestEnvironment) else None for one in environments]
    log_verdicts(_NAME, verdicts, log_metric, log_extra)
    if log_metric is not None and own:
        log_metric(f"{_NAME}/without_hidden_tests", sum(one.has_no_hidden_tests for one in own) / len(own))
        log_metric(f"{_NAME}/submitted", sum(one.submitted is not None for one in own) / len(own))
        log_metric(f"{_NAME}/repaired", sum(one.repaired for one in own) / len(own))
        log_metric(f"{_NAME}/test_runs", sum(len(one.programs) for one in own) / len(own))
    pairs = zip(environments, verdicts, strict=True)
    return [None if verdict is None else one._factory.credit.reward(verdict) for one, verdict in pairs]
