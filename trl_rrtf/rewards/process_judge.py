"""A judge for each process that uses it: objects that hold one can be pickled, copied and forked."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import weakref
from multiprocessing.util import Finalize
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.rows.checks import shown


class ProcessJudge:
    """The settings of a judge, and the judge itself where it is used.

    It is opened by the first call of `opened` in a process, and closed by `close`, with its process, or when nobody holds this
    object any more. A forked process opens its own; a pickle or a copy holds the settings alone. Safe to use from several
    threads.

    Args:
        config: Limits. Without `num_workers` the processes that a launcher started on this machine share its cores.

    Attributes:
        unjudged: How many programs could not be judged in this process.

    Raises:
        ConfigError: `config` is no `JudgeConfig`.
        JudgeError: From `opened`: the system is not Linux, or lacks what `required_isolation` names.
    """

    def __init__(self, config: JudgeConfig) -> None:
        if not isinstance(config, JudgeConfig):
            raise ConfigError(f"`judge_config`: expected a JudgeConfig, such as `JudgeConfig(timeout=3)`, got {shown(config)}")
        self.config = config
        self._begin()

    def _begin(self) -> None:
        self.unjudged = 0
        self._lock = threading.Lock()
        self._judge: Judge | None = None
        self._closing: Finalize | None = None
        _all.add(self)

    def opened(self) -> Judge:
        """The judge of this process."""
        with self._lock:
            if self._judge is None:
                self._judge = Judge(_with_own_cores(self.config))
                # Unlike `atexit` it runs in processes of multiprocessing too, and never in a fork of the one that makes it.
                self._closing = Finalize(self, _close, args=(self._judge,), exitpriority=0)
            return self._judge

    def close(self) -> None:
        """Ends the judge of this process, if there is one; the next call of `opened` makes a new one."""
        with self._lock:
            closing, self._closing, self._judge = self._closing, None, None
        if closing is not None:
            closing()

    def count_unjudged(self, found: int) -> bool:
        """Counts what could not be judged in this process; whether it is the first of it."""
        with self._lock:
            is_first = found > 0 and self.unjudged == 0
            self.unjudged += found
        return is_first

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.config = state["config"]
        self._begin()


_all: weakref.WeakSet[ProcessJudge] = weakref.WeakSet()


def _begin_in_fork() -> None:
    """A forked process has its parent's objects but none of its threads: locks may be held by nobody, judges never answer."""
    for judge in list(_all):
        judge._begin()


os.register_at_fork(after_in_child=_begin_in_fork)


def _close(judge: Judge) -> None:
    # Garbage may be collected in one of the judge's own threads, which cannot wait for itself; by then all of them are told.
    with contextlib.suppress(RuntimeError):
        judge.close()


def _with_own_cores(config: JudgeConfig) -> JudgeConfig:
    """The settings of one of several processes on this machine, as torchrun and accelerate start them."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    if config.num_workers is not None or not processes.isdecimal() or int(processes) < 2:
        return config
    return dataclasses.replace(config, num_workers=max(1, len(os.sched_getaffinity(0)) // int(processes)))
