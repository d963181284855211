"""The row formats that every stage reads and writes, and their checks.

Data flows one way, and each stage adds its columns:

```
Problem ──sample──> CandidateGroup ──judge──> JudgedGroup ──rank──> RankedGroup ──train──> checkpoint
```

A row is a plain dictionary, one line of a JSON Lines file. Columns that a format does not know pass through in `extra`.
Every check raises [`RowError`][trl_rrtf.errors.RowError] with the place of the row, the column, what was got and what to do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Self

from trl_rrtf.errors import RowError

Messages = list[dict[str, Any]]
"""A conversation: a list of `{"role": ..., "content": ...}`."""

TEST_KINDS = ("assert", "check", "call", "stdio")
"""Kinds of test: one assertion, HumanEval's `check(candidate)`, arguments and result as JSON, standard input and output."""

SOURCES = ("teacher", "student", "reference")
"""Where a candidate came from. A `reference` (a known solution) counts as a teacher."""

TEACHER_SOURCES = ("teacher", "reference")
"""The sources that count as teachers in the ranking and in the loss."""


class Outcome(IntEnum):
    """What happened when a candidate met its tests, from low to high.

    `INFRASTRUCTURE` is no rank: the judge could not judge, and the candidate is left out instead of being scored low.
    """

    INFRASTRUCTURE = -1
    COMPILE_ERROR = 0
    RUNTIME_ERROR = 1
    FAILED = 2
    PARTIAL = 3
    PASSED = 4

    @property
    def label(self) -> str:
        """The name in a row, such as `"compile_error"`."""
        return self.name.lower()


OUTCOMES = tuple(outcome.label for outcome in Outcome)
"""The outcome names of a verdict row."""


@dataclass(kw_only=True)
class UnitTest:
    """One test of a problem.

    Attributes:
        kind: One of [`TEST_KINDS`][trl_rrtf.groups.TEST_KINDS].
        code: `assert`: one assertion; `check`: a definition of `check(candidate)`.
        stdin: `stdio`: text for standard input.
        stdout: `stdio`: expected standard output.
        input: `call`: JSON list of arguments.
        output: `call`: JSON of the expected result.
    """

    kind: str
    code: str | None = None
    stdin: str | None = None
    stdout: str | None = None
    input: str | None = None
    output: str | None = None

    REQUIRED: ClassVar[dict[str, tuple[str, ...]]] = {
        "assert": ("code",),
        "check": ("code",),
        "call": ("input", "output"),
        "stdio": ("stdin", "stdout"),
    }

    @classmethod
    def from_row(cls, row: Any, where: str, column: str) -> Self:
        """Checks one entry of a `tests` column."""
        if not isinstance(row, Mapping):
            raise RowError(where, column, f"expected an object with the key `kind`, got {_shown(row)}")
        kind = row.get("kind")
        if kind not in TEST_KINDS:
            raise RowError(where, f"{column}.kind", f"expected one of {', '.join(TEST_KINDS)}, got {_shown(kind)}")
        for key in cls.REQUIRED[kind]:
            if not isinstance(row.get(key), str):
                raise RowError(where, f"{column}.{key}", f"a test of kind `{kind}` needs text here, got {_shown(row.get(key))}")
        values: dict[str, Any] = {name.name: row.get(name.name) for name in dataclasses.fields(cls)}
        return cls(**values)

    def to_row(self) -> dict[str, Any]:
        """The test as a plain dictionary, unused keys null."""
        return dataclasses.asdict(self)


@dataclass(kw_only=True)
class Verdict:
    """What happened when one candidate met its tests: a fact, never a score.

    Attributes:
        outcome: What happened.
        passed: Number of tests (assertions) that held.
        total: Number of tests. 0 only when the judge failed.
        seconds: Wall-clock time of the candidate, in seconds.
        detail: Short reason, such as `"AssertionError, test 3"` or `"time limit of 3 s"`.
    """

    outcome: Outcome
    passed: int = 0
    total: int = 0
    seconds: float = 0.0
    detail: str = ""

    @classmethod
    def from_row(cls, row: Any, where: str, column: str) -> Self:
        """Checks one entry of a `verdicts` column."""
        if not isinstance(row, Mapping) or row.get("outcome") not in OUTCOMES:
            got = row.get("outcome") if isinstance(row, Mapping) else row
            raise RowError(where, f"{column}.outcome", f"expected one of {', '.join(OUTCOMES)}, got {_shown(got)}")
        return cls(
            outcome=Outcome[row["outcome"].upper()],
            passed=int(row.get("passed") or 0),
            total=int(row.get("total") or 0),
            seconds=float(row.get("seconds") or 0.0),
            detail=str(row.get("detail") or ""),
        )

    def to_row(self) -> dict[str, Any]:
        """The verdict as a plain dictionary."""
        return {**dataclasses.asdict(self), "outcome": self.outcome.label}


@dataclass(kw_only=True)
class Problem:
    """A task with its tests.

    Attributes:
        problem_id: Unique name.
        prompt: The statement, as text or as messages.
        tests: At least one test; a problem without tests cannot be judged.
        entry_point: Name of the function that the tests call, or None for a whole program.
        setup_code: Code that runs before the candidate (imports, helpers).
        reference_solution: A program that passes, or None.
        extra: Columns that the format does not know.
    """

    problem_id: str
    prompt: str | Messages
    tests: list[UnitTest]
    entry_point: str | None = None
    setup_code: str = ""
    reference_solution: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Any, where: str, *, require_tests: bool = True) -> Self:
        """Checks a row and builds the object.

        Args:
            row: A decoded row.
            where: The place of the row, for the error message.
            require_tests: Whether a row without tests is refused; only problems that will get tests later may lack them.

        Raises:
            RowError: The row breaks the format.
        """
        row = _mapping(row, where)
        known = {name.name for name in dataclasses.fields(cls)} - {"extra"}
        extra = {key: value for key, value in row.items() if key not in known}
        return cls(**cls._columns(row, where, require_tests), extra=extra)

    @classmethod
    def _columns(cls, row: Mapping[str, Any], where: str, require_tests: bool) -> dict[str, Any]:
        tests = _list(row, "tests", where) if require_tests or row.get("tests") is not None else []
        if require_tests and not tests:
            raise RowError(where, "tests", "the list is empty; a problem needs at least one test to be judged")
        return {
            "problem_id": _text(row, "problem_id", where),
            "prompt": _prompt(row, where),
            "tests": [UnitTest.from_row(test, where, f"tests[{i}]") for i, test in enumerate(tests)],
            "entry_point": _optional_text(row, "entry_point", where),
            "setup_code": _optional_text(row, "setup_code", where) or "",
            "reference_solution": _optional_text(row, "reference_solution", where),
        }

    def to_row(self) -> dict[str, Any]:
        """The object as a plain dictionary, unknown columns included."""
        row = {name.name: getattr(self, name.name) for name in dataclasses.fields(self) if name.name != "extra"}
        row["tests"] = [test.to_row() for test in self.tests]
        return {**row, **self.extra}


@dataclass(kw_only=True)
class CandidateGroup(Problem):
    """A problem with its candidates.

    Attributes:
        completions: One self-contained program per candidate.
        sources: Where each came from, one of [`SOURCES`][trl_rrtf.groups.SOURCES].
        models: Name of the model (or data set) that each came from.
    """

    completions: list[str]
    sources: list[str]
    models: list[str]

    @classmethod
    def from_problem(cls, problem: Problem, completions: list[str], sources: list[str], models: list[str]) -> Self:
        """Puts candidates to a problem."""
        columns = {name.name: getattr(problem, name.name) for name in dataclasses.fields(Problem)}
        return cls(**columns, completions=completions, sources=sources, models=models)

    @classmethod
    def _columns(cls, row: Mapping[str, Any], where: str, require_tests: bool) -> dict[str, Any]:
        completions = _texts(row, "completions", where)
        return {
            **super()._columns(row, where, require_tests),
            "completions": completions,
            "sources": _sources(row, where, len(completions)),
            "models": _same_length(_texts(row, "models", where), "models", where, len(completions)),
        }


@dataclass(kw_only=True)
class JudgedGroup(CandidateGroup):
    """A candidate group with a verdict for each candidate.

    Attributes:
        verdicts: One verdict per candidate.
    """

    verdicts: list[Verdict]

    @classmethod
    def from_candidates(cls, group: CandidateGroup, verdicts: list[Verdict]) -> Self:
        """Puts verdicts to a candidate group."""
        columns = {name.name: getattr(group, name.name) for name in dataclasses.fields(CandidateGroup)}
        return cls(**columns, verdicts=verdicts)

    @classmethod
    def _columns(cls, row: Mapping[str, Any], where: str, require_tests: bool) -> dict[str, Any]:
        columns = super()._columns(row, where, require_tests)
        verdicts = _same_length(_list(row, "verdicts", where), "verdicts", where, len(columns["completions"]))
        columns["verdicts"] = [Verdict.from_row(verdict, where, f"verdicts[{i}]") for i, verdict in enumerate(verdicts)]
        return columns

    def to_row(self) -> dict[str, Any]:
        """The object as a plain dictionary, unknown columns included."""
        return {**super().to_row(), "verdicts": [verdict.to_row() for verdict in self.verdicts]}


@dataclass(kw_only=True)
class RankedGroup:
    """One prompt, its candidates and their scores: a row that `RRTFTrainer` trains on.

    Attributes:
        prompt: Text or messages.
        completions: At least two candidates, each text or messages.
        scores: One finite number per candidate, larger is better.
        sources: Where each came from, or None when that is not known.
        extra: Columns that the format does not know.
    """

    prompt: str | Messages
    completions: list[Any]
    scores: list[float]
    sources: list[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Any, where: str) -> Self:
        """Checks a row and builds the object.

        Args:
            row: A decoded row.
            where: The place of the row, for the error message.

        Raises:
            RowError: The row breaks the format.
        """
        row = _mapping(row, where)
        prompt = _prompt(row, where)
        completions = _list(row, "completions", where)
        if len(completions) < 2:
            raise RowError(where, "completions", f"a group needs at least two candidates to be ranked, got {len(completions)}")
        is_completion = _is_messages if isinstance(prompt, list) else _is_text
        kind = "messages" if isinstance(prompt, list) else "text"
        for i, completion in enumerate(completions):
            if not is_completion(completion):
                raise RowError(where, f"completions[{i}]", f"expected {kind}, as the prompt is, got {_shown(completion)}")
        scores = _same_length(_list(row, "scores", where), "scores", where, len(completions))
        for i, score in enumerate(scores):
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise RowError(where, f"scores[{i}]", f"expected a finite number, got {_shown(score)}")
        sources = _sources(row, where, len(completions)) if row.get("sources") is not None else None
        known = ("prompt", "completions", "scores", "sources")
        return cls(
            prompt=prompt,
            completions=completions,
            scores=[float(score) for score in scores],
            sources=sources,
            extra={key: value for key, value in row.items() if key not in known},
        )

    def to_row(self) -> dict[str, Any]:
        """The object as a plain dictionary, unknown columns included."""
        row = {"prompt": self.prompt, "completions": self.completions, "scores": self.scores}
        if self.sources is not None:
            row["sources"] = self.sources
        return {**row, **self.extra}


def _shown(value: Any) -> str:
    """A value for an error message: its type and its first characters."""
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _mapping(row: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise RowError(where, None, f"expected an object with named columns, got {_shown(row)}")
    return row


def _column(row: Mapping[str, Any], column: str, where: str) -> Any:
    if row.get(column) is None:
        raise RowError(where, column, f"the column is missing; the row has {', '.join(map(str, row)) or 'no column'}")
    return row[column]


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = _column(row, column, where)
    if not isinstance(value, str):
        raise RowError(where, column, f"expected text, got {_shown(value)}")
    return value


def _optional_text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    return None if row.get(column) is None else _text(row, column, where)


def _list(row: Mapping[str, Any], column: str, where: str) -> list[Any]:
    value = _column(row, column, where)
    if not isinstance(value, list | tuple):
        raise RowError(where, column, f"expected a list, got {_shown(value)}")
    return list(value)


def _texts(row: Mapping[str, Any], column: str, where: str) -> list[str]:
    values = _list(row, column, where)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise RowError(where, f"{column}[{i}]", f"expected text, got {_shown(value)}")
    return values


def _same_length(values: list[Any], column: str, where: str, length: int) -> list[Any]:
    if len(values) != length:
        raise RowError(where, column, f"expected one entry per completion ({length}), got {len(values)}")
    return values


def _sources(row: Mapping[str, Any], where: str, length: int) -> list[str]:
    sources = _same_length(_texts(row, "sources", where), "sources", where, length)
    for i, source in enumerate(sources):
        if source not in SOURCES:
            raise RowError(where, f"sources[{i}]", f"expected one of {', '.join(SOURCES)}, got {_shown(source)}")
    return sources


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, Mapping) and "role" in message and "content" in message for message in value)
    )


def _prompt(row: Mapping[str, Any], where: str) -> str | Messages:
    prompt: str | Messages = _column(row, "prompt", where)
    if not (_is_text(prompt) and prompt) and not _is_messages(prompt):
        raise RowError(where, "prompt", f"expected text or messages (role, content), got {_shown(prompt)}")
    return prompt
