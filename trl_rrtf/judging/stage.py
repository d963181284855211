"""The `judge` stage: candidate groups in, judged groups out."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from trl_rrtf.cluster import map_on_cluster
from trl_rrtf.errors import JudgeError
from trl_rrtf.judging.config import JudgeArguments, JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.judging.preparation import check_tests
from trl_rrtf.options import settings_of
from trl_rrtf.rows.files import check_rows, fingerprint, iterate_rows, stream_rows
from trl_rrtf.rows.records import CandidateGroup, JudgedGroup, Outcome, Verdict
from trl_rrtf.rows.stage import RowStage
from trl_rrtf.rows.summary import Summary, of_this_run

_MOST_NAMED = 5


@dataclasses.dataclass(kw_only=True)
class JudgeSummary(Summary):
    """What the `judge` stage did.

    Attributes:
        groups: Problems.
        candidates: Candidates of all of them.
        outcomes: Name of each outcome, best first -> candidates.
        programs_run: Programs that ran in this run of the stage; equal ones of a group count once.
        programs_per_second: The same per second of wall-clock time.
        isolation: What held the programs, in a line; None where a cluster ran them.
        output: The judged groups.
    """

    groups: int
    candidates: int
    outcomes: dict[str, int]
    programs_run: int = of_this_run()
    programs_per_second: float = of_this_run(0.0)
    isolation: str | None = None
    output: str

    def table(self) -> dict[str, Any]:
        """What to show: label -> value."""
        return {
            "groups": self.groups,
            "candidates": self.candidates,
            **self.outcomes,
            "programs run": self.programs_run,
            "programs per second": self.programs_per_second,
            **({} if self.isolation is None else {"isolation": self.isolation}),
            "output": self.output,
        }


def run_judge(arguments: JudgeArguments, config: JudgeConfig) -> JudgeSummary:
    """Judges every candidate; an interrupted run goes on with the group where it stopped.

    Returns:
        Groups, candidates, counts per outcome, programs per second.

    Raises:
        RowError: A row breaks the format; found before any program runs.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: The output is the input, the tests of a problem cannot be run, or the cluster cannot be reached.
        JudgeError: Too many candidates could not be judged.
    """
    return _JudgeStage(arguments, config).run()


class _JudgeStage(RowStage[JudgeSummary]):
    name = "judge"
    summary_type = JudgeSummary

    def __init__(self, arguments: JudgeArguments, config: JudgeConfig) -> None:
        super().__init__(arguments, config)
        self._arguments, self._config = arguments, config
        self._programs_run = 0
        self._isolation: str | None = None

    def check(self) -> int:
        self._num_groups = check_rows(self._arguments.input, CandidateGroup)
        check_tests((where, CandidateGroup.from_row(row, where)) for where, row in iterate_rows(self._arguments.input))
        return self._num_groups

    def settings(self) -> dict[str, Any]:
        return {"input": fingerprint(self._arguments.input), **settings_of(self._config)}

    def rows(self, done: int) -> Iterator[JudgedGroup]:
        self.progress.update(done)
        self._started = time.monotonic()
        failures = _Failures(self._config)
        todo = islice(stream_rows(self._arguments.input, CandidateGroup), done, None)
        with contextlib.closing(self._judged(todo)) as all_judged:
            for judged in all_judged:
                yield judged
                failures.stop_if_too_many(judged)  # when it is written: what is judged is kept
                self._programs_run += len({candidate.program for candidate in judged.candidates})
                self.progress.update()
                self.progress.set_postfix_str(f"{self._programs_per_second():.0f} programs/s")

    def _judged(self, groups: Iterable[CandidateGroup]) -> Generator[JudgedGroup, None, None]:
        if self._arguments.cluster:
            yield from _judge_on_cluster(self._arguments.cluster, self._config, groups)
            return
        with Judge(self._config) as judge:
            self._isolation = judge.isolation().summary()
            yield from judge_groups(judge, groups)

    def _programs_per_second(self) -> float:
        return self._programs_run / (time.monotonic() - self._started)

    def summary(self, rows_file: Path) -> JudgeSummary:
        programs_per_second = round(self._programs_per_second(), 1)
        counts = Counter(verdict.outcome for group in stream_rows(rows_file, JudgedGroup) for verdict in group.verdicts)
        return JudgeSummary(
            groups=self._num_groups,
            candidates=counts.total(),
            outcomes={outcome.label: counts[outcome] for outcome in reversed(Outcome)},
            programs_run=self._programs_run,
            programs_per_second=programs_per_second,
            isolation=self._isolation,
            output=self._arguments.output,
        )


def judge_groups(judge: Judge, groups: Iterable[CandidateGroup]) -> Iterator[JudgedGroup]:
    """Judges a stream of groups in order; equal programs of a group run once.

    Args:
        judge: The judge.
        groups: Candidate groups. Few are read ahead of what was yielded, so the stream may be long.

    Yields:
        Each group with its verdicts.
    """
    waiting: deque[tuple[CandidateGroup, list[str]]] = deque()  # read, and not yet yielded

    def programs() -> Iterator[tuple[CandidateGroup, str]]:
        for group in groups:
            distinct = list(dict.fromkeys(candidate.program for candidate in group.candidates))
            waiting.append((group, distinct))
            yield from ((group, program) for program in distinct)

    by_program: dict[str, Verdict] = {}
    for verdict in judge.judge_many(programs()):
        while not waiting[0][1]:  # a group without candidates has nothing to wait for
            yield _with_verdicts(waiting.popleft()[0], {})
        group, distinct = waiting[0]
        by_program[distinct[len(by_program)]] = verdict
        if len(by_program) == len(distinct):
            waiting.popleft()
            yield _with_verdicts(group, by_program)
            by_program = {}
    for group, _ in waiting:
        yield _with_verdicts(group, {})


def _with_verdicts(group: CandidateGroup, by_program: Mapping[str, Verdict]) -> JudgedGroup:
    judged = [dataclasses.replace(candidate, verdict=by_program[candidate.program]) for candidate in group.candidates]
    return JudgedGroup.from_problem(group, judged)


def _judge_on_cluster(address: str, config: JudgeConfig, groups: Iterable[CandidateGroup]) -> Iterator[JudgedGroup]:
    """Judges groups on the machines of a cluster; yields them in order."""
    one_core = dataclasses.replace(config, num_workers=1)
    items = ((index, group.to_row()) for index, group in enumerate(groups))
    waiting: dict[int, Any] = {}
    expected = 0
    for index, row in map_on_cluster(address, partial(_GroupJudge, one_core), items):
        waiting[index] = row
        while expected in waiting:
            yield JudgedGroup.from_row(waiting.pop(expected), "a row of the cluster")
            expected += 1


class _GroupJudge:
    """Judges groups on one core of a cluster."""

    def __init__(self, config: JudgeConfig) -> None:
        self._judge = Judge(config)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        group = CandidateGroup.from_row(row, f"problem {row['problem_id']}")
        return next(judge_groups(self._judge, [group])).to_row()


class _Failures:
    """Counts candidates that could not be judged."""

    def __init__(self, config: JudgeConfig) -> None:
        self._config = config
        self._candidates = 0
        self._found: list[str] = []

    def stop_if_too_many(self, judged: JudgedGroup) -> None:
        """Raises a JudgeError above the share that is allowed; it names the programs."""
        self._candidates += len(judged.verdicts)
        self._found += [
            f"candidate {number} of problem {judged.problem_id!r}: {verdict.detail}"
            for number, verdict in enumerate(judged.verdicts)
            if verdict.outcome is Outcome.INFRASTRUCTURE
        ]
        if self._config.are_too_many(len(self._found), self._candidates):
            listed = "; ".join(self._found[-_MOST_NAMED:])
            raise JudgeError(
                f"{len(self._found)} of {self._candidates} candidates could not be judged, more than "
                f"`max_infrastructure_fraction={self._config.max_infrastructure_fraction}`; the last ones: "
                f"{listed}. What is judged is kept; the same command goes on behind it"
            )
