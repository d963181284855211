"""The `judge` stage: candidate groups in, judged groups out."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from typing import Any

from tqdm import tqdm

from trl_rrtf.cluster import map_on_cluster
from trl_rrtf.errors import JudgeError
from trl_rrtf.groups import CandidateGroup, JudgedGroup, Outcome, Verdict
from trl_rrtf.judging.config import JudgeArguments, JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.row_files import ResumableWriter, check_rows, fingerprint, stream_rows

_DECISIVE = ("timeout", "memory_mb", "max_output_bytes", "stop_at_first_failure", "second_run")
"""Settings that can change a verdict; the others may differ when a run goes on."""

_ENOUGH_TO_COUNT = 20
"""Candidates after which the share of failures of the judge is taken seriously."""


def run_judge(arguments: JudgeArguments, config: JudgeConfig) -> dict[str, Any]:
    """Judges every candidate; an interrupted run goes on with the group where it stopped.

    Returns:
        A summary: groups, candidates, counts per outcome, programs per second.

    Raises:
        RowError: A row breaks the format; found before any program runs.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: The cluster cannot be reached.
        JudgeError: Too many candidates could not be judged.
    """
    num_groups = check_rows(arguments.input, CandidateGroup)
    limits = {name: value for name, value in asdict(config).items() if name in _DECISIVE}
    settings = {"stage": "judge", "input": fingerprint(arguments.input), **limits}
    started, programs = time.monotonic(), 0
    isolation: dict[str, str] = {}
    with (
        ResumableWriter(arguments.output, settings, overwrite=arguments.overwrite) as writer,
        contextlib.nullcontext() if arguments.cluster else Judge(config) as judge,
    ):
        if not writer.finished:
            todo = islice(stream_rows(arguments.input, CandidateGroup), writer.rows_done, None)
            if judge is None:
                all_judged = _judge_on_cluster(str(arguments.cluster), config, todo)
            else:
                isolation = {"isolation": judge.isolation().summary()}
                all_judged = judge_groups(judge, todo)
            counts: Counter[Outcome] = Counter()
            with tqdm(total=num_groups, initial=writer.rows_done, desc="judge", unit="group") as bar:
                for judged in all_judged:
                    counts.update(verdict.outcome for verdict in judged.verdicts)
                    _stop_if_broken(counts, judged, config)
                    writer.write([judged])
                    programs += len(set(judged.completions))
                    bar.update()
                    bar.set_postfix_str(f"{programs / (time.monotonic() - started):.0f} programs/s")
            writer.finish()
    seconds = time.monotonic() - started
    outcomes = Counter(
        verdict.outcome.label for group in stream_rows(arguments.output, JudgedGroup) for verdict in group.verdicts
    )
    return {
        "groups": num_groups,
        "candidates": sum(outcomes.values()),
        **{outcome.label: outcomes[outcome.label] for outcome in reversed(Outcome)},
        "programs run": programs,
        "programs per second": round(programs / seconds, 1),
        **isolation,
        "output": arguments.output,
    }


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
            distinct = list(dict.fromkeys(group.completions))
            waiting.append((group, distinct))
            yield from ((group, program) for program in distinct)

    by_program: dict[str, Verdict] = {}
    for verdict in judge.judge_many(programs()):
        while not waiting[0][1]:  # a group without candidates has nothing to wait for
            yield JudgedGroup.from_candidates(waiting.popleft()[0], [])
        group, distinct = waiting[0]
        by_program[distinct[len(by_program)]] = verdict
        if len(by_program) == len(distinct):
            waiting.popleft()
            yield JudgedGroup.from_candidates(group, [by_program[program] for program in group.completions])
            by_program = {}
    for group, _ in waiting:
        yield JudgedGroup.from_candidates(group, [])


def _judge_on_cluster(address: str, config: JudgeConfig, groups: Iterable[CandidateGroup]) -> Iterator[JudgedGroup]:
    """Judges groups on the machines of a cluster; yields them in order."""
    one_core = replace(config, num_workers=1)
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


def _stop_if_broken(counts: Counter[Outcome], judged: JudgedGroup, config: JudgeConfig) -> None:
    total, failures = sum(counts.values()), counts[Outcome.INFRASTRUCTURE]
    if total >= _ENOUGH_TO_COUNT and failures > config.max_infrastructure_fraction * total:
        details = (verdict.detail for verdict in judged.verdicts if verdict.outcome is Outcome.INFRASTRUCTURE)
        raise JudgeError(
            f"{failures} of {total} candidates could not be judged, more than `max_infrastructure_fraction="
            f"{config.max_infrastructure_fraction}`; the last reason: {next(details, 'see the output')}. What is judged is kept"
        )
