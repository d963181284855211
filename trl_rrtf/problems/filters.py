"""The `filter` stage: which problems are worth training on, and which are a benchmark's in disguise."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import Problem
from trl_rrtf.problems.decontamination import Benchmarks, Match
from trl_rrtf.problems.deduplication import NearDuplicates, statement
from trl_rrtf.problems.loaders import iterate_problems
from trl_rrtf.row_files import ResumableWriter, fingerprint, write_json


@dataclass
class FilterArguments:
    """Files of the `filter` stage.

    Attributes:
        problems: Problems.
        output: The problems that are kept, `.jsonl` or `.parquet`; what was dropped and why goes to `OUTPUT.report.json`.
        overwrite: Throw away an earlier output.
    """

    problems: str = field(metadata={"help": "Problems: a file, a Hub data set id, or `humaneval`."})
    output: str = field(metadata={"help": "Where the kept problems go (.jsonl or .parquet); the report goes beside it."})
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier output."})


@dataclass
class FilterConfig:
    """What is dropped.

    Attributes:
        against: Benchmarks that no problem may repeat.
        ngram: Words of a run that a statement must not share with a benchmark.
        benchmark_similarity: Similarity from which a statement is a near-duplicate of a benchmark's.
        word_similarity: Cosine of rare words from which a statement is a paraphrase of a benchmark's.
        duplicate_similarity: Similarity from which a statement is a near-duplicate of an earlier one; 1 for equal ones only.
        min_characters: Shortest statement.
        max_characters: Longest statement.
        min_tests: Fewest tests.
        require_reference: Whether a problem needs a reference solution.

    Raises:
        ConfigError: A value is out of range.
    """

    against: list[str] = field(
        default_factory=lambda: ["humaneval"],
        metadata={"help": "Benchmarks that no problem may repeat: files, Hub data set ids, or `humaneval`."},
    )
    ngram: int = field(default=10, metadata={"help": "A statement may not share so many words in a row with a benchmark's."})
    benchmark_similarity: float = field(
        default=0.5, metadata={"help": "Jaccard similarity of word shingles from which a statement repeats a benchmark's."}
    )
    word_similarity: float = field(
        default=0.45,
        metadata={
            "help": "Cosine of the rare words (TF-IDF) from which a statement paraphrases a benchmark's; 1 switches it off."
        },
    )
    duplicate_similarity: float = field(
        default=0.8, metadata={"help": "The same among the problems themselves; the first one stays."}
    )
    min_characters: int = field(default=0, metadata={"help": "Shortest statement, in characters."})
    max_characters: int = field(default=20_000, metadata={"help": "Longest statement, in characters."})
    min_tests: int = field(default=1, metadata={"help": "Fewest tests; 0 keeps problems without any."})
    require_reference: bool = field(default=False, metadata={"help": "Drop problems without a reference solution."})

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("benchmark_similarity", "word_similarity", "duplicate_similarity"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"`{name}`: expected a number above 0 and up to 1, got {getattr(self, name)}")
        if self.ngram < 3:
            raise ConfigError(f"`ngram`: expected at least 3 words, got {self.ngram}; any two texts share fewer")
        if not 0 <= self.min_characters <= self.max_characters:
            raise ConfigError(
                f"`min_characters`, `max_characters`: expected 0 <= min <= max, got {self.min_characters} and "
                f"{self.max_characters}"
            )


def run_filter(arguments: FilterArguments, config: FilterConfig) -> dict[str, Any]:
    """Filters problems one at a time; an interrupted run starts again, since each depends on those before it.

    Returns:
        A summary: problems, kept, dropped by rule.

    Raises:
        LoadError: The problems or a benchmark are not there.
        RowError: A row breaks the format; found before anything is written.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: No problem is left.
    """
    total = sum(1 for _ in iterate_problems(arguments.problems, require_tests=False))
    benchmarks = Benchmarks(
        chain.from_iterable(map(iterate_problems, config.against)),
        map(statement, iterate_problems(arguments.problems, require_tests=False)),
        ngram=config.ngram,
        threshold=config.benchmark_similarity,
        word_similarity=config.word_similarity,
    )
    source = fingerprint(arguments.problems) if Path(arguments.problems).exists() else arguments.problems
    settings = {"stage": "filter", "problems": source, **asdict(config)}
    with ResumableWriter(arguments.output, settings, overwrite=arguments.overwrite) as writer:
        seen, dropped, kept = NearDuplicates(config.duplicate_similarity), list[dict[str, str]](), 0
        problems = iterate_problems(arguments.problems, require_tests=False)
        for problem in tqdm(problems, total=total, desc="filter", unit="problem"):
            match = _reason_to_drop(problem, config, benchmarks, seen)
            if match is not None:
                dropped.append({"problem_id": problem.problem_id, **asdict(match)})
                continue
            kept += 1
            if not writer.finished and kept > writer.rows_done:
                writer.write([problem])
        if not kept and not writer.finished:
            writer.discard()
            raise ConfigError(f"`problems`: none of the {total} problems is left; the last was dropped by {dropped[-1]}")
        counts = Counter(entry["rule"] for entry in dropped)
        report = {"problems": total, "kept": kept, "dropped by rule": dict(counts), "settings": settings, "dropped": dropped}
        write_json(f"{arguments.output}.report.json", report)
        writer.finish()
    return {
        "problems": total,
        "kept": kept,
        **{f"dropped: {rule}": n for rule, n in counts.items()},
        "output": arguments.output,
    }


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
