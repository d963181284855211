"""The `judge` stage: candidate groups in, judged groups out."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from tqdm import tqdm

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
        JudgeError: Too many candidates could not be judged.
    """
    num_groups = check_rows(arguments.input, CandidateGroup)
    limits = {name: value for name, value in asdict(config).items() if name in _DECISIVE}
    settings = {"stage": "judge", "input": fingerprint(arguments.input), **limits}
    started, programs = time.monotonic(), 0
    isolation = {}
    with ResumableWriter(arguments.output, settings, overwrite=arguments.overwrite) as writer, Judge(config) as judge:
        if not writer.finished:
            isolation = {"isolation": judge.isolation().summary()}
            todo = islice(stream_rows(arguments.input, CandidateGroup), writer.rows_done, None)
            counts: Counter[Outcome] = Counter()
            with tqdm(total=num_groups, initial=writer.rows_done, desc="judge", unit="group") as bar:
                for judged in judge_groups(judge, todo):
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


def _stop_if_broken(counts: Counter[Outcome], judged: JudgedGroup, config: JudgeConfig) -> None:
    total, failures = sum(counts.values()), counts[Outcome.INFRASTRUCTURE]
    if total >= _ENOUGH_TO_COUNT and failures > config.max_infrastructure_fraction * total:
        details = (verdict.detail for verdict in judged.verdicts if verdict.outcome is Outcome.INFRASTRUCTURE)
        raise JudgeError(
            f"{failures} of {total} candidates could not be judged, more than `max_infrastructure_fraction="
            f"{config.max_infrastructure_fraction}`; the last reason: {next(details, 'see the output')}. What is judged is kept"
        )
