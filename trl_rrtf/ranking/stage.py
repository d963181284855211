"""The `rank` stage: judged groups in, ranked groups, their report and data card out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import JudgedGroup, RankedGroup
from trl_rrtf.ranking.config import RankArguments, RankConfig
from trl_rrtf.ranking.report import FATES_SUFFIX, GroupStatistics, write_report
from trl_rrtf.ranking.scores import KEPT, rank_group
from trl_rrtf.row_files import ResumableWriter, check_rows, fingerprint, stream_rows, write_json


def run_rank(arguments: RankArguments, config: RankConfig) -> dict[str, Any]:
    """Ranks every group, one at a time.

    Returns:
        A summary: groups kept, dropped and why, candidates per outcome, ordered teacher-student pairs.

    Raises:
        RowError: A row breaks the format.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: No group is left.
    """
    num_groups = check_rows(arguments.input, JudgedGroup)
    settings = {"stage": "rank", "input": fingerprint(arguments.input), **asdict(config)}
    fates: Counter[str] = Counter()

    def ranked_groups() -> Iterator[RankedGroup]:
        for group in tqdm(stream_rows(arguments.input, JudgedGroup), total=num_groups, desc="rank", unit="group"):
            ranked, fate = rank_group(group, config)
            fates[fate] += 1
            if ranked is not None:
                yield ranked

    with ResumableWriter(arguments.output, settings, overwrite=arguments.overwrite) as writer:
        if writer.finished:
            fates.update(json.loads(_fates_file(arguments.output).read_text(encoding="utf-8"))["fates"])
        else:
            for ranked in islice(ranked_groups(), writer.rows_done, None):
                writer.write([ranked])
            if not fates[KEPT]:
                writer.discard()
                raise ConfigError(
                    f"`input`: none of the {num_groups} groups is left ({_counts(fates)}); sample more, or from a teacher"
                )
            write_json(_fates_file(arguments.output), {"fates": dict(fates), "judge": _settings_of(arguments.input)})
            writer.finish()
    statistics = GroupStatistics.of(arguments.output)
    if arguments.report is not None:
        write_report(arguments.output, arguments.report, name=Path(arguments.output).stem, license=arguments.license)
    summary = {
        "groups": num_groups,
        **dict(sorted(fates.items(), reverse=True)),
        "candidates by outcome": _counts(statistics.outcomes),
        "teacher-student pairs": statistics.teacher_student_pairs,
        "groups without such a pair": statistics.groups_without_pair,
        "output": arguments.output,
    }
    return summary


def _fates_file(output: str) -> Path:
    return Path(output + FATES_SUFFIX)


def _settings_of(source: str) -> dict[str, Any]:
    """What the judge left beside its rows, for the data card."""
    path = Path(source + ".settings.json")
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: value for name, value in settings.items() if name not in ("stage", "input")}


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())
