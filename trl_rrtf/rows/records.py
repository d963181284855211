"""The row formats that every stage reads and writes, and their checks.

Data flows one way, and each stage adds its columns:

```
Problem ──sample──> CandidateGroup ──judge──> JudgedGroup ──rank──> RankedGroup ──train──> checkpoint
```

A row is a plain dictionary, one line of a JSON Lines file, with a column per property of the candidates; in memory a candidate
is one object. `from_row` and `to_row` alone know the columns. Those that a format does not know are the user's: they pass
through in `extra`, and nothing here reads them.
Every check raises [`RowError`][trl_rrtf.errors.RowError] with the place of the row, the column, what was got and what to do.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Self

from trl_rrtf.errors import RowError
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows import checks
from trl_rrtf.rows.checks import Messages as Messages
from trl_rrtf.rows.repairs import repair_column

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
        kind: One of [`TEST_KINDS`][trl_rrtf.rows.records.TEST_KINDS].
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
            raise RowError(where, column, f"expected an object with the key `kind`, got {checks.shown(row)}")
        kind = row.get("kind")
        if kind not in TEST_KINDS:
            raise RowError(where, f"{column}.kind", f"expected one of {', '.join(TEST_KINDS)}, got {checks.shown(kind)}")
        for key in cls.REQUIRED[kind]:
            if not isinstance(row.get(key), str):
                raise RowError(
                    where, f"{column}.{key}", f"a test of kind `{kind}` needs text here, got {checks.shown(row.get(key))}"
                )
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
            raise RowError(where, f"{column}.outcome", f"expected one of {', '.join(OUTCOMES)}, got {checks.shown(got)}")
        verdict = cls(
            outcome=Outcome[row["outcome"].upper()],
            passed=checks.count(row, "passed", where, column),
            total=checks.count(row, "total", where, column),
            seconds=checks.seconds(row, where, column),
            detail=str(row.get("detail") or ""),
        )
        if (contradiction := verdict._contradiction()) is not None:
            raise RowError(where, column, f"{contradiction}; judge the candidates again")
        return verdict

    def _contradiction(self) -> str | None:
        """What outcome and counts say against each other."""
        counts = f"`{self.outcome.label}` with {self.passed} of {self.total} tests passed"
        if self.passed > self.total:
            return f"{counts}: more passed than there are"
        if self.outcome is Outcome.PASSED and (self.passed < self.total or not self.total):
            return f"{counts}: a program passes when it passes all of at least one"
        if self.outcome is Outcome.PARTIAL and not self.passed:
            return f"{counts}: a partial program passes at least one"
        if Outcome.COMPILE_ERROR <= self.outcome < Outcome.PARTIAL and self.passed:
            return f"{counts}: a program that passes some is partial"
        return None

    def to_row(self) -> dict[str, Any]:
        """The verdict as a plain dictionary."""
        return {**dataclasses.asdict(self), "outcome": self.outcome.label}


LEETCODE_IMPORTS = "from typing import *\nfrom collections import *"
"""What every solution of a LeetCode problem may use without importing it."""


def leetcode_setup(setup_code: str, prompt: str | Messages, entry_point: str | None, tests: list[UnitTest]) -> str:
    """The setup code of a problem, with [`LEETCODE_IMPORTS`][trl_rrtf.rows.records.LEETCODE_IMPORTS] if it is LeetCode's style.

    That it is where the prompt holds `class Solution`, or the entry point or a test is a method of `Solution`. Setup code that
    imports from typing or collections itself stays as it is: whoever wrote it chose the names.

    Args:
        setup_code: As the row has it.
        prompt: The statement.
        entry_point: The function that the tests call, or None.
        tests: The tests.
    """
    texts = checks.prompt_texts(prompt)
    in_style = (
        any(re.search(r"\bclass Solution\b", text) for text in texts)
        or re.match(r"Solution\b", entry_point or "")
        or any(re.search(r"\bSolution\(\)\.", test.code or "") for test in tests)
    )
    if not in_style or {"typing", "collections"} & _imported_modules(setup_code):
        return setup_code
    return f"{LEETCODE_IMPORTS}\n{setup_code}" if setup_code else LEETCODE_IMPORTS


def _imported_modules(code: str) -> set[str]:
    """The modules that code imports at its top; typing where it does not parse, so that it is left for the judge to tell."""
    try:
        statements = parse_program(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {"typing"}
    modules = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    return modules | {node.module or "" for node in statements if isinstance(node, ast.ImportFrom)}


@dataclass(kw_only=True)
class Problem:
    """A task with its tests.

    Attributes:
        problem_id: Unique name.
        prompt: The statement, as text or as messages.
        tests: At least one test; a problem without tests cannot be judged.
        entry_point: Name of the function that the tests call, or None for a whole program.
        setup_code: Code that runs before the candidate (imports, helpers). A row in LeetCode's style gets what LeetCode
            imports, see [`leetcode_setup`][trl_rrtf.rows.records.leetcode_setup].
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
        row = checks.mapping(row, where)
        extra = {key: value for key, value in row.items() if key not in cls._known_columns()}
        return cls(**cls._columns(row, where, require_tests), extra=checks.plain_columns(extra, where))

    @classmethod
    def _known_columns(cls) -> list[str]:
        return [name.name for name in dataclasses.fields(Problem) if name.name != "extra"]

    @classmethod
    def _columns(cls, row: Mapping[str, Any], where: str, require_tests: bool) -> dict[str, Any]:
        tests = checks.entries(row, "tests", where) if require_tests or row.get("tests") is not None else []
        if require_tests and not tests:
            raise RowError(where, "tests", "the list is empty; a problem needs at least one test to be judged")
        columns: dict[str, Any] = {
            "problem_id": checks.text(row, "problem_id", where),
            "prompt": checks.prompt(row, where),
            "tests": [UnitTest.from_row(test, where, f"tests[{i}]") for i, test in enumerate(tests)],
            "entry_point": checks.optional_text(row, "entry_point", where),
            "setup_code": checks.optional_text(row, "setup_code", where) or "",
            "reference_solution": checks.optional_text(row, "reference_solution", where),
        }
        in_style = {name: columns[name] for name in ("setup_code", "prompt", "entry_point", "tests")}
        return {**columns, "setup_code": leetcode_setup(**in_style)}

    def to_row(self) -> dict[str, Any]:
        """The object as a plain dictionary, unknown columns included."""
        return {**self._own_columns(), **self.extra}

    def _own_columns(self) -> dict[str, Any]:
        columns = {name: getattr(self, name) for name in Problem._known_columns()}
        return {**columns, "tests": [test.to_row() for test in self.tests]}


@dataclass(kw_only=True)
class Candidate:
    """One completion of a problem.

    Attributes:
        program: A self-contained program.
        source: Who wrote it, one of [`SOURCES`][trl_rrtf.rows.records.SOURCES].
        model: Name of the model (or data set) that it came from.
        raw: What the model wrote, before the program was taken out of it; None where that is not known.
        teacher_log_prob: Mean log-probability that a teacher model gives it, nats per token; None where none was asked.
        verdict: What happened when it met the tests; None until it is judged.
        repair_of: Index in its group of the candidate that it repairs: its model was shown how that one fails. None for a
            candidate that was drawn on its own.
    """

    program: str
    source: str
    model: str
    raw: str | None = None
    teacher_log_prob: float | None = None
    verdict: Verdict | None = None
    repair_of: int | None = None

    @property
    def is_teachers(self) -> bool:
        """Whether a teacher (or a reference) wrote it."""
        return self.source in TEACHER_SOURCES


@dataclass(kw_only=True)
class CandidateGroup(Problem):
    """A problem with its candidates.

    In a row: `completions`, `sources` and `models`, and where a candidate has them `raw_completions`, `teacher_log_probs`,
    `verdicts` and `repair_of`; each a list with an entry per candidate.

    Attributes:
        candidates: The candidates.
    """

    candidates: list[Candidate]

    COLUMNS: ClassVar[tuple[str, ...]] = ("completions", "sources", "models")
    OPTIONAL_COLUMNS: ClassVar[tuple[str, ...]] = ("raw_completions", "teacher_log_probs", "verdicts", "repair_of")

    @classmethod
    def from_problem(cls, problem: Problem, candidates: list[Candidate]) -> Self:
        """Puts candidates to a problem (or to another group's problem)."""
        columns = {name.name: getattr(problem, name.name) for name in dataclasses.fields(Problem)}
        return cls(**columns, candidates=candidates)

    @classmethod
    def _known_columns(cls) -> list[str]:
        return [*super()._known_columns(), *cls.COLUMNS, *cls.OPTIONAL_COLUMNS]

    @classmethod
    def _columns(cls, row: Mapping[str, Any], where: str, require_tests: bool) -> dict[str, Any]:
        programs = checks.texts(row, "completions", where)
        length = len(programs)
        columns = (
            programs,
            _sources(row, where, length),
            checks.same_length(checks.texts(row, "models", where), "models", where, length),
            checks.optional_entries(row, "raw_completions", where, length, checks.is_text, "text"),
            checks.optional_entries(row, "teacher_log_probs", where, length, checks.is_number, "a finite number"),
            _verdicts(row, where, length),
            repair_column(row, where, length),
        )
        names = [name.name for name in dataclasses.fields(Candidate)]
        candidates = [Candidate(**dict(zip(names, entry, strict=True))) for entry in zip(*columns, strict=True)]
        return {**super()._columns(row, where, require_tests), "candidates": candidates}

    def _own_columns(self) -> dict[str, Any]:
        optional: dict[str, list[Any]] = {
            "raw_completions": [candidate.raw for candidate in self.candidates],
            "teacher_log_probs": [candidate.teacher_log_prob for candidate in self.candidates],
            "verdicts": [candidate.verdict and candidate.verdict.to_row() for candidate in self.candidates],
            "repair_of": [candidate.repair_of for candidate in self.candidates],
        }
        return {
            **super()._own_columns(),
            "completions": [candidate.program for candidate in self.candidates],
            "sources": [candidate.source for candidate in self.candidates],
            "models": [candidate.model for candidate in self.candidates],
            **{name: values for name, values in optional.items() if any(value is not None for value in values)},
        }


@dataclass(kw_only=True)
class JudgedGroup(CandidateGroup):
    """A candidate group in which each candidate has a verdict."""

    @classmethod
    def _columns(cls, row: Mapping[str, Any], where: str, require_tests: bool) -> dict[str, Any]:
        verdicts = checks.entries(row, "verdicts", where)
        columns = super()._columns(row, where, require_tests)
        if None in verdicts:
            missing = verdicts.index(None)
            raise RowError(where, f"verdicts[{missing}]", "the candidate has not been judged; run `trl-rrtf judge`")
        return columns

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict of each candidate."""
        return [candidate.verdict for candidate in self.candidates if candidate.verdict is not None]


@dataclass(kw_only=True)
class RankedCandidate:
    """One completion of a ranked group.

    Attributes:
        completion: Text or messages.
        score: A finite number, larger is better.
        source: Who wrote it, or None where that is not known.
        model: Name of the model that it came from, or None.
        outcome: What happened when it met its tests, one of [`OUTCOMES`][trl_rrtf.rows.records.OUTCOMES], or None.
    """

    completion: str | Messages
    score: float
    source: str | None = None
    model: str | None = None
    outcome: str | None = None

    @property
    def is_teachers(self) -> bool:
        """Whether a teacher (or a reference) wrote it."""
        return self.source in TEACHER_SOURCES

    @property
    def text(self) -> str:
        """The completion's text, of the last message where it is messages."""
        if isinstance(self.completion, str):
            return self.completion
        return checks.message_text(self.completion[-1], "a ranked group", "completions")


@dataclass(kw_only=True)
class RankedGroup:
    """One prompt with its candidates and their scores: a row that `RRTFTrainer` trains on.

    In a row: `completions`, `scores` and, where they are known, `sources`, `models` and `outcomes`; each a list with an entry
    per candidate.

    Attributes:
        prompt: Text or messages.
        candidates: At least two.
        extra: Columns that the format does not know.
    """

    prompt: str | Messages
    candidates: list[RankedCandidate]
    extra: dict[str, Any] = field(default_factory=dict)

    COLUMNS: ClassVar[tuple[str, ...]] = ("prompt", "completions", "scores", "sources", "models", "outcomes")

    @classmethod
    def from_row(cls, row: Any, where: str) -> Self:
        """Checks a row and builds the object.

        Args:
            row: A decoded row.
            where: The place of the row, for the error message.

        Raises:
            RowError: The row breaks the format.
        """
        row = checks.mapping(row, where)
        prompt = checks.prompt(row, where)
        completions = checks.entries(row, "completions", where)
        length = len(completions)
        if length < 2:
            raise RowError(where, "completions", f"a group needs at least two candidates to be ranked, got {length}")
        is_completion = checks.is_messages if isinstance(prompt, list) else checks.is_text
        kind = "messages" if isinstance(prompt, list) else "text"
        for i, completion in enumerate(completions):
            if not is_completion(completion):
                raise RowError(where, f"completions[{i}]", f"expected {kind}, as the prompt is, got {checks.shown(completion)}")
        columns = (
            completions,
            checks.scores(row, where, length),
            [None] * length if row.get("sources") is None else _sources(row, where, length),
            checks.optional_entries(row, "models", where, length, checks.is_text, "text"),
            checks.optional_entries(row, "outcomes", where, length, OUTCOMES.__contains__, f"one of {', '.join(OUTCOMES)}"),
        )
        names = [name.name for name in dataclasses.fields(RankedCandidate)]
        return cls(
            prompt=prompt,
            candidates=[RankedCandidate(**dict(zip(names, entry, strict=True))) for entry in zip(*columns, strict=True)],
            extra=checks.plain_columns({key: value for key, value in row.items() if key not in cls.COLUMNS}, where),
        )

    def to_row(self) -> dict[str, Any]:
        """The group as a plain dictionary, unknown columns included."""
        optional: dict[str, list[Any]] = {
            "sources": [candidate.source for candidate in self.candidates],
            "models": [candidate.model for candidate in self.candidates],
            "outcomes": [candidate.outcome for candidate in self.candidates],
        }
        return {
            "prompt": self.prompt,
            "completions": [candidate.completion for candidate in self.candidates],
            "scores": [candidate.score for candidate in self.candidates],
            **{name: values for name, values in optional.items() if any(value is not None for value in values)},
            **self.extra,
        }


def _sources(row: Mapping[str, Any], where: str, length: int) -> list[str]:
    sources = checks.same_length(checks.texts(row, "sources", where), "sources", where, length)
    for i, source in enumerate(sources):
        if source not in SOURCES:
            raise RowError(where, f"sources[{i}]", f"expected one of {', '.join(SOURCES)}, got {checks.shown(source)}")
    return sources


def _verdicts(row: Mapping[str, Any], where: str, length: int) -> list[Verdict | None]:
    return [
        None if verdict is None else Verdict.from_row(verdict, where, f"verdicts[{i}]")
        for i, verdict in enumerate(checks.optional_list(row, "verdicts", where, length))
    ]
