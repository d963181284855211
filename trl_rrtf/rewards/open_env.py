"""The judge as an environment of [OpenEnv](https://github.com/huggingface/OpenEnv), in this process or behind its server.

```python
app = make_app(load_problems("problems.jsonl"), UnitTestEnvironmentFactory(public_tests=1))  # uvicorn module:app
```

Needs `pip install 'trl-rrtf[openenv]'`.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from trl_rrtf.errors import ConfigError, TrlRrtfError
from trl_rrtf.rewards.environment import UnitTestEnvironmentFactory
from trl_rrtf.rows import checks
from trl_rrtf.rows.records import Outcome, Problem

try:
    from openenv.core.env_server import Action, Environment, Observation, State, create_app
except ImportError as error:
    raise ConfigError("`trl_rrtf.rewards.open_env` needs OpenEnv; `pip install 'trl-rrtf[openenv]'`") from error


class UnitTestAction(Action):
    """A step: what is asked, and the whole program."""

    tool: Literal["run_public_tests", "submit"]
    program: str


class UnitTestObservation(Observation):
    """What the model may read: after `reset` the statement, after a step the transcript. `reward` comes with `submit`."""

    text: str


class UnitTestState(State):
    """Where an episode stands; nothing of any test."""

    problem_id: str = ""
    test_runs: int = 0
    submitted: bool = False


class UnitTestOpenEnvironment(Environment[UnitTestAction, UnitTestObservation, UnitTestState]):
    """[`UnitTestEnvironment`][trl_rrtf.UnitTestEnvironment] with OpenEnv's `reset`, `step` and `state`.

    What the model may not do (a second `submit`, a run too many) is an observation that says so, as any other.

    Args:
        problems: At least one; an episode is about one of them.
        factory: Settings and judge, which the environments of a server share; `owns_reward` has no meaning here.

    Raises:
        ConfigError: There is no problem.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, problems: Sequence[Problem], factory: UnitTestEnvironmentFactory) -> None:
        super().__init__()
        if not problems:
            raise ConfigError("`problems`: expected at least one, got none")
        self._problems = problems
        self._factory = factory
        self._environment = factory()
        self._state = UnitTestState()

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, index: int | None = None, **_: Any
    ) -> UnitTestObservation:
        """Begins an episode.

        Args:
            seed: Fixes which problem is drawn.
            episode_id: A name for the state.
            index: The problem itself, by its place; then nothing is drawn.

        Raises:
            ConfigError: There is no problem at this index, or its tests cannot be run.
            JudgeError: The judge cannot be opened here.
        """
        if index is None:
            index = random.Random(seed).randrange(len(self._problems))
        if not 0 <= index < len(self._problems):
            raise ConfigError(f"`index`: expected one from 0 to {len(self._problems) - 1}, got {index!r}")
        problem = self._problems[index]
        self._environment.reset(**problem.to_row())
        self._state = UnitTestState(episode_id=episode_id, problem_id=problem.problem_id)
        return UnitTestObservation(text="\n\n".join(checks.prompt_texts(problem.prompt)))

    def step(self, action: UnitTestAction, timeout_s: float | None = None, **_: Any) -> UnitTestObservation:
        """Runs the public tests on a program, or submits it.

        Args:
            action: Which of the two, and the program.
            timeout_s: Left to the limits of the judge's configuration.

        Raises:
            ConfigError: There was no `reset`.
        """
        try:
            text = getattr(self._environment, action.tool)(action.program)
        except TrlRrtfError:
            raise  # no model's fault
        except (ValueError, RuntimeError) as error:
            text = str(error)
        submitted = self._environment.submitted is not None
        self._state.step_count += 1
        self._state.test_runs = len(self._environment.programs)
        if submitted and not self._state.submitted:
            self._state.submitted = True
            verdict = self._environment.verdict
            if verdict.outcome is Outcome.INFRASTRUCTURE:
                text = f"The program could not be judged, and has no reward: {verdict.detail}"
            return UnitTestObservation(text=text, done=True, reward=self._factory.credit.reward(verdict))
        return UnitTestObservation(text=text, done=submitted)

    @property
    def state(self) -> UnitTestState:
        """Where the episode stands."""
        return self._state


def make_app(problems: Iterable[Problem], factory: UnitTestEnvironmentFactory, max_concurrent_envs: int = 8) -> Any:
    """OpenEnv's server (a FastAPI application) for these problems.

    Args:
        problems: The problems.
        factory: Settings and judge.
        max_concurrent_envs: Episodes at a time.
    """
    make = functools.partial(UnitTestOpenEnvironment, list(problems), factory)
    return create_app(
        make,
        UnitTestAction,
        UnitTestObservation,
        env_name="unit_tests",
        max_concurrent_envs=max_concurrent_envs,
        state_cls=UnitTestState,
    )
