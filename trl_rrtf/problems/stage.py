"""The `filter` stage: which problems are worth training on, and which are a benchmark's in disguise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import settings_of
from trl_rrtf.problems.config import FilterArguments, FilterConfig
from trl_rrtf.problems.decontamination import Benchmarks, Match
from trl_rrtf.problems.deduplication import NearDuplicates, statement
from trl_rrtf.problems.loaders import SkippedRows, check_problems, iterate_problems
from trl_rrtf.rows.files import fingerprint
from trl_rrtf.rows.records import Problem
from trl_rrtf.rows.stage import RowStage
from trl_rrtf.rows.summary import Summary


@dataclass(kw_only=True)
class FilterSummary(Summary):
    """What the `filter` stage did.

    Attributes:
        problems: Problems that were looked at.
        skipped: Reason -> rows that are no problems, and were passed over.
        kept: Problems that are in the output.
        dropped_by_rule: Rule -> problems that it dropped.
        dropped: For each dropped problem `problem_id`, `rule`, `other` (the problem that it repeats, or nothing) and
            `evidence`; only in `OUTPUT.summary.json`, not in the table.
        output: The kept problems.
    """

    problems: int
    skipped: dict[str, int] = field(default_factory=dict)
    kept: int
    dropped_by_rule: dict[str, int]
    dropped: list[dict[str, str]] = field(repr=False)
    output: str

    def table(self) -> dict[str, Any]:
        """What to show: label -> value."""
        return {
            "problems": self.problems,
            **{f"passed over: {reason}": count for reason, count in self.skipped.items()},
            "kept": self.kept,
            **{f"dropped: {rule}": count for rule, count in self.dropped_by_rule.items()},
            "output": self.output,
        }


def run_filter(arguments: FilterArguments, config: FilterConfig) -> FilterSummary:
    """Filters problems one at a time; a killed run looks at those before it again, since each depends on them.

    Returns:
        Problems, those that are kept, and those that each rule dropped.

    Raises:
        LoadError: The problems or a benchmark are not there.
        RowError: A row breaks the format, or two problems have one id; found before anything is written.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: The output is an input, a package is missing, or no problem is left.
    """
    return _FilterStage(arguments, config).run()


class _FilterStage(RowStage[FilterSummary]):
    name = "filter"
    unit = "problem"
    summary_type = FilterSummary

    def __init__(self, arguments: FilterArguments, config: FilterConfig) -> None:
        super().__init__(arguments, config)
        self._arguments, self._config = arguments, config
        self._dropped: list[dict[str, str]] = []
        self._skipped = SkippedRows()

    def check(self) -> int:
        self._num_problems = check_problems(
            self._arguments.input,
            require_tests=False,
            allow_copies=True,
            skip_unusable=self._config.skip_unusable,
            skipped=self._skipped,
        )
        for benchmark in self._config.against:
            check_problems(benchmark)
        return self._num_problems

    def settings(self) -> dict[str, Any]:
        return {
            "input": fingerprint(self._arguments.input),
            **settings_of(self._config),
            "against": [fingerprint(benchmark) for benchmark in self._config.against],
        }

    def rows(self, done: int) -> Iterator[Problem]:
        config = self._config
        benchmarks = Benchmarks(
            chain.from_iterable(map(iterate_problems, config.against)),
            map(statement, self._problems()),
            ngram=config.ngram,
            threshold=config.benchmark_similarity,
            word_similarity=config.word_similarity,
        )
        seen, kept = NearDuplicates(config.duplicate_similarity), 0
        for problem in self._problems():
            match = _reason_to_drop(problem, config, benchmarks, seen)
            if match is None:
                kept += 1
                if kept > done:
                    yield problem
            else:
                self._dropped.append({"problem_id": problem.problem_id, **asdict(match)})
            self.progress.update()

    def _problems(self) -> Iterator[Problem]:
        return iterate_problems(self._arguments.input, require_tests=False, skip_unusable=self._config.skip_unusable)

    def summary(self, rows_file: Path) -> FilterSummary:
        kept = self._num_problems - len(self._dropped)
        if not kept:
            raise ConfigError(
                f"`input`: none of the {self._num_problems} problems is left; the last was dropped by {self._dropped[-1]}"
            )
        return FilterSummary(
            problems=self._num_problems,
            skipped=dict(self._skipped.reasons),
            kept=kept,
            dropped_by_rule=dict(Counter(entry["rule"] for entry in self._dropped)),
            dropped=self._dropped,
            output=self._arguments.output,
        )


def _reason_to_drop(problem: Problem, config: FilterConfig, benchmarks: Benchmarks, seen: NearDuplicates) -> Match | None:
    text = statement(problem)
    if not config.min_characters <= len(text) <= config.max_characters:
        return Match("length", "", f"{len(text)} characters")
    if len(problem.tests) < config.min_tests:
        return Match("tests_missing", "", f"{len(problem.tests)} tests")
    if config.require_reference and problem.reference_solution is None:
        return Match("reference_missing", "", "")
    match = benchmarks.find(problem)
    if match is not None:
        return Match(f"benchmark_{match.rule}", match.other, match.evidence)
    near = seen.find(text)
    if near is not None:
        return Match("duplicate", near[0], f"similarity {near[1]:.2f}")
    seen.add(problem.problem_id, text)
    return None
