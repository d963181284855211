"""The `evolve` stage: Evol-Instruct in rounds, with tests written by the teacher and checked by the judge.

Each round asks the teacher to make every surviving problem a bit harder, drops failed evolutions by the rules of
`rewriting.py`, and gives the rest tests by those of `synthesis.py`. What a round made stands in `OUTPUT.rounds/`, so a killed
run goes on with the batch where it stopped.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.evolving.config import EvolveArguments, EvolveConfig, TeacherConfig
from trl_rrtf.evolving.rounds import Evolution, Round, evolved_id
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.models.paths import model_fingerprint, require_model
from trl_rrtf.options import settings_of
from trl_rrtf.problems import check_problems, iterate_problems
from trl_rrtf.rows.files import fingerprint, stream_rows
from trl_rrtf.rows.records import Problem
from trl_rrtf.rows.resumable import ResumableWriter
from trl_rrtf.rows.stage import RowStage
from trl_rrtf.rows.summary import Summary
from trl_rrtf.sampling.draws import Sampler
from trl_rrtf.sampling.engines import ENGINES
from trl_rrtf.sampling.sampler import make_sampler


@dataclass(kw_only=True)
class EvolveSummary(Summary):
    """What the `evolve` stage did.

    Attributes:
        seeds: Problems at the start.
        survivors_by_round: Evolutions that each round left.
        eliminated: Reason -> evolutions that were dropped for it.
        dropped: For each of them `problem_id`, `reason` and `method`; only in `OUTPUT.summary.json`, not in the table.
        output: The evolved problems.
    """

    seeds: int
    survivors_by_round: list[int]
    eliminated: dict[str, int]
    dropped: list[dict[str, str | None]] = field(repr=False)
    output: str

    def table(self) -> dict[str, Any]:
        """What to show: label -> value."""
        return {
            "seeds": self.seeds,
            **{f"survivors of round {number}": count for number, count in enumerate(self.survivors_by_round, start=1)},
            **{f"eliminated: {reason}": count for reason, count in self.eliminated.items()},
            "output": self.output,
        }


def run_evolve(
    arguments: EvolveArguments,
    config: EvolveConfig,
    teacher: TeacherConfig,
    judging: JudgeConfig,
    sampler: Sampler | None = None,
) -> EvolveSummary:
    """Evolves problems; an interrupted run goes on with the batch where it stopped.

    Args:
        arguments: Files.
        config: Rounds, rules and tests.
        teacher: The model that writes.
        judging: Limits of the judge that checks the tests.
        sampler: A loaded model; by default that of `teacher`, loaded when it is needed.

    Returns:
        Seeds, survivors of each round, eliminations by reason.

    Raises:
        LoadError: The seeds or the model are not there.
        RowError: A row breaks the format, or two seeds have one id; found before the model is loaded.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: The output is the input, rapidfuzz is missing, two settings contradict each other, or nothing survives.
    """
    return _EvolveStage(arguments, config, teacher, judging, sampler).run()


class _EvolveStage(RowStage[EvolveSummary]):
    name = "evolve"
    unit = "problem"
    summary_type = EvolveSummary

    def __init__(
        self,
        arguments: EvolveArguments,
        config: EvolveConfig,
        teacher: TeacherConfig,
        judging: JudgeConfig,
        sampler: Sampler | None,
    ) -> None:
        super().__init__(arguments, config, teacher, judging)
        self._arguments, self._config, self._teacher, self._judging = arguments, config, teacher, judging
        self._sampler = sampler
        self._folder = Path(f"{arguments.output}.rounds")
        self._rounds = [self._folder / f"round-{number}.jsonl" for number in range(1, config.rounds + 1)]

    def check(self) -> int:
        _require_rapidfuzz()
        if self._teacher.temperature == 0 and self._config.synthesize_tests and self._config.num_votes > 1:
            raise ConfigError(
                f"`num_votes`: greedy sampling (`temperature=0`) gives one solution, got {self._config.num_votes}; set it to 1 "
                "or raise the temperature"
            )
        if self._sampler is None and not self._is_remote:
            require_model(self._teacher.model)
        arguments = self._arguments
        self._num_seeds = check_problems(
            arguments.input,
            arguments.where,
            arguments.limit,
            require_tests=False,
            skip_unusable=arguments.skip_unusable,
        )
        if self._config.keep_seeds:
            self._require_other_ids()
        return self._num_seeds * self._config.rounds

    @property
    def _is_remote(self) -> bool:
        return ENGINES[self._teacher.engine].is_remote

    def _require_other_ids(self) -> None:
        """Refuses seeds that are called as an evolution of another one will be."""
        ids = {seed.problem_id for seed in self._seeds()}
        for seed_id in ids:
            for number in range(1, self._config.rounds + 1):
                if (taken := evolved_id(seed_id, number)) in ids:
                    raise ConfigError(
                        f"`keep_seeds`: {taken!r} is the id of a seed, and that of an evolution of {seed_id!r} to come; leave "
                        "`keep_seeds` out, or rename the seed"
                    )

    def settings(self) -> dict[str, Any]:
        return {
            **settings_of(self._arguments),
            "input": fingerprint(self._arguments.input),
            **settings_of(self._config),
            **settings_of(self._teacher),  # the model's path too: the seeds are made from it
            **({} if self._is_remote else {"model_fingerprint": model_fingerprint(self._teacher.model)}),
            **settings_of(self._judging),
        }

    def rows(self, done: int) -> Iterator[Problem]:
        with Judge(self._judging) as judge:
            for number in range(1, self._config.rounds + 1):
                self._run_round(number, judge)
        yield from islice(self._written(), done, None)

    def _run_round(self, number: int, judge: Judge) -> None:
        num_parents = sum(1 for _ in self._parents(number))
        self.progress.set_description(f"evolve, round {number}", refresh=False)
        self.progress.total = self.progress.n + num_parents * (self._config.rounds + 1 - number)
        size = self._teacher.batch_size
        with ResumableWriter(self._rounds[number - 1], self.settings(), rows_per_step=size) as writer:
            if writer.finished:
                self.progress.update(num_parents)
                return
            self.progress.update(writer.rows_done)
            todo = islice(self._parents(number), writer.rows_done, None)
            while batch := list(islice(todo, size)):
                self._sampler = self._sampler or make_sampler(self._teacher)
                writer.write(Round(number, self._config, self._teacher, self._sampler, judge).evolve(batch))
                self.progress.update(len(batch))
            writer.finish()

    def _seeds(self) -> Iterator[Problem]:
        arguments = self._arguments
        return iterate_problems(
            arguments.input, arguments.where, arguments.limit, require_tests=False, skip_unusable=arguments.skip_unusable
        )

    def _parents(self, number: int) -> Iterator[Evolution]:
        return map(Evolution.of_seed, self._seeds()) if number == 1 else _survivors(self._rounds[number - 2])

    def _written(self) -> Iterator[Problem]:
        if self._config.keep_seeds:
            yield from (seed for seed in self._seeds() if seed.tests or not self._config.synthesize_tests)
        for path in self._rounds:
            yield from (survivor.with_lineage() for survivor in _survivors(path))

    def summary(self, rows_file: Path) -> EvolveSummary:
        survivors, dropped = [0] * len(self._rounds), list[dict[str, str | None]]()
        reasons: Counter[str] = Counter()
        for index, path in enumerate(self._rounds):
            for evolution in stream_rows(path, Evolution):
                if evolution.eliminated is None:
                    survivors[index] += 1
                    continue
                reasons[evolution.eliminated] += 1
                dropped.append(
                    {
                        "problem_id": evolution.problem.problem_id,
                        "reason": evolution.eliminated,
                        "method": evolution.method,
                    }
                )
        if not any(survivors):
            self._remove_rounds()
            raise ConfigError(f"`input`: no evolution survived ({dict(reasons)}); try another teacher")
        return EvolveSummary(
            seeds=self._num_seeds,
            survivors_by_round=survivors,
            eliminated=dict(reasons),
            dropped=dropped,
            output=self._arguments.output,
        )

    def throw_away(self) -> None:
        self._remove_rounds()

    def clean_up(self) -> None:
        self._remove_rounds()

    def _remove_rounds(self) -> None:
        for path in self._folder.glob("round-*.jsonl*"):
            path.unlink()
        with contextlib.suppress(OSError):  # it never was, or somebody else put something there
            self._folder.rmdir()


def _require_rapidfuzz() -> None:
    if importlib.util.find_spec("rapidfuzz") is None:
        raise ConfigError("comparing evolutions with their parents needs the package rapidfuzz; install `trl-rrtf[filters]`")


def _survivors(path: Path) -> Iterator[Evolution]:
    return (evolution for evolution in stream_rows(path, Evolution) if evolution.eliminated is None)
