"""Does a problem repeat one of a benchmark? Six rules, each of which names the benchmark's problem that it met.

| rule | catches | what is compared |
|---|---|---|
| `ngram` | copies, and copies with text around | runs of `ngram` words of the statement |
| `near_duplicate` | copies with some words changed | MinHash of the statement's word shingles (datasketch) |
| `entry_point` | a function of the same name | names but for case and underscores |
| `words` | reworded statements | cosine of the statements' rare words (TF-IDF) |
| `program` | reworded statements with the same solution | programs without names, comments, docstrings |
| `tests` | reworded statements with the same examples | arguments and results of the assertions, without the function's name |

A name of two words or more with at least eight letters (`has_close_elements`) is enough alone. A shorter one, or one of a
single word (`add`, `search`, `is_prime`), is enough where more speaks for it: half the similarity that `words` asks for, or one
test that is the same. Names that say nothing (`solve`, `f`) are left out. In scripts without spaces a character counts as half
a word.

A paraphrase in other words, with another solution and other tests, is not caught by any of them.
"""

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from trl_rrtf.problems.deduplication import NearDuplicates, is_character, runs, statement, words
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows.records import Problem

SMALLEST_PROGRAM = 12
"""Syntax nodes from which a program is told apart from others of its kind; `return a + b` is nobody's."""

SHARED_TESTS = 2
"""Tests that must be the same."""

TELLING_NAME = 8
"""Letters from which a name of two words or more tells its problem alone."""


@dataclass(frozen=True)
class Match:
    """Why a problem is dropped.

    Attributes:
        rule: Name of the rule.
        other: The problem that it repeats.
        evidence: What is the same, shortened.
    """

    rule: str
    other: str
    evidence: str


class Benchmarks:
    """Problems that must not be trained on.

    Args:
        problems: Problems of one or more benchmarks.
        background: Statements by which common words are told from rare ones: those of the problems that will be looked up.
        ngram: Words of a run that two statements must not share.
        threshold: Jaccard similarity from which statements are near-duplicates.
        word_similarity: Cosine of the rare words from which a statement is a paraphrase.
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        background: Iterable[str],
        *,
        ngram: int = 10,
        threshold: float = 0.5,
        word_similarity: float = 0.45,
    ) -> None:
        problems = list(problems)
        self._ngram, self._word_similarity = ngram, word_similarity
        self._frequencies: Counter[str] = Counter()
        self._num_texts = 0
        for text in chain(background, map(statement, problems)):
            self._frequencies.update(set(_content_words(text)))
            self._num_texts += 1
        self._vectors = {problem.problem_id: self._vector(statement(problem)) for problem in problems}
        self._entry_points: dict[str, list[str]] = defaultdict(list)
        self._near_duplicates = NearDuplicates(threshold)
        self._ngrams: dict[str, str] = {}
        self._programs: dict[str, str] = {}
        self._tests: dict[str, set[str]] = defaultdict(set)
        for problem in problems:
            for run in runs(words(statement(problem)), ngram):
                self._ngrams.setdefault(run, problem.problem_id)
            self._near_duplicates.add(problem.problem_id, statement(problem))
            if name := _normalized_name(problem.entry_point):
                self._entry_points[name].append(problem.problem_id)
            for program in _program_hashes(problem.reference_solution or ""):
                self._programs.setdefault(program, problem.problem_id)
            for test in _normalized_tests(problem):
                self._tests[test].add(problem.problem_id)

    def find(self, problem: Problem) -> Match | None:
        """The first rule that the problem breaks, or None."""
        for run in runs(words(statement(problem)), self._ngram):
            if run in self._ngrams:
                return Match("ngram", self._ngrams[run], run)
        near = self._near_duplicates.find(statement(problem))
        if near is not None:
            return Match("near_duplicate", near[0], f"similarity {near[1]:.2f}")
        similarities = self._similarities(statement(problem))
        shared = Counter(other for test in _normalized_tests(problem) for other in self._tests.get(test, ()))
        for other in self._entry_points.get(_normalized_name(problem.entry_point), ()):
            called = f"both are called {problem.entry_point}"
            if _is_telling(problem.entry_point or ""):
                return Match("entry_point", other, called)
            if 2 * similarities[other] >= self._word_similarity:
                return Match("entry_point", other, f"{called}, similarity {similarities[other]:.2f}")
            if shared[other]:
                return Match("entry_point", other, f"{called}, {shared[other]} tests are the same")
        similarity, other = max(((similarity, other) for other, similarity in similarities.items()), default=(0.0, ""))
        if similarity >= self._word_similarity:
            return Match("words", other, f"similarity {similarity:.2f}")
        for program in _program_hashes(problem.reference_solution or ""):
            if program in self._programs:
                return Match("program", self._programs[program], "the same program but for names")
        for other, count in shared.most_common(1):
            if count >= SHARED_TESTS:
                return Match("tests", other, f"{count} tests are the same")
        return None

    def _similarities(self, text: str) -> dict[str, float]:
        """The cosine with each problem of the benchmarks."""
        vector = self._vector(text)
        return {
            key: sum(weight * other.get(word, 0.0) for word, weight in vector.items()) for key, other in self._vectors.items()
        }

    def _vector(self, text: str) -> dict[str, float]:
        """Weights of the statement's words, of length 1: rare words count most (TF-IDF)."""
        counts = Counter(_content_words(text))
        weights = {
            word: (1 + math.log(count)) * math.log(self._num_texts / self._frequencies[word])
            for word, count in counts.items()
            if self._frequencies[word]
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {word: weight / length for word, weight in weights.items()} if length else {}


_COMMON_NAMES = {"f", "g", "main", "solve", "solution", "func", "function", "test", "answer", "run", "task"}


def _normalized_name(name: str | None) -> str:
    normalized = (name or "").replace("_", "").lower()
    return "" if normalized in _COMMON_NAMES else normalized


def _is_telling(name: str) -> bool:
    """Whether a name says alone what the function is for: it has two words, and is no short one."""
    return len(re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)) > 1 and len(name.replace("_", "")) >= TELLING_NAME


_EXAMPLES = re.compile(r">>>.*|\bexamples?:?[ ]*\n.*?(\"\"\"|\Z)", re.DOTALL | re.IGNORECASE)


def _content_words(text: str) -> list[str]:
    """Words of the statement without its examples, a plural's `s` and numbers; pairs in scripts without spaces.

    A single character there is too common to tell statements apart.
    """
    tokens = [word.rstrip("s") for word in words(_EXAMPLES.sub(" ", text)) if not word.isdigit()]
    single = [is_character(token) for token in tokens]
    pairs = [tokens[i] + tokens[i + 1] for i in range(len(tokens) - 1) if single[i] and single[i + 1]]
    return [token for token, is_single in zip(tokens, single, strict=True) if not is_single] + pairs


def _program_hashes(code: str) -> list[str]:
    """A hash of each function, and of the whole, with names numbered by their first use."""
    try:
        tree = parse_program(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    parts: list[ast.AST] = [*functions] if functions else [tree]
    return [
        hashlib.blake2b(ast.dump(normalized).encode(), digest_size=8).hexdigest()
        for normalized in map(_without_names, parts)
        if sum(1 for _ in ast.walk(normalized)) >= SMALLEST_PROGRAM
    ]


def _without_names(node: ast.AST) -> ast.AST:
    """A copy with own names numbered; names of builtins and modules, attributes and constants stay."""
    copy = ast.parse(ast.unparse(node))
    numbers: dict[str, str] = {}
    own = {part.arg for part in ast.walk(copy) if isinstance(part, ast.arg)}
    own |= {part.id for part in ast.walk(copy) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    own |= {part.name for part in ast.walk(copy) if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}

    def number(name: str) -> str:
        return numbers.setdefault(name, f"name_{len(numbers)}") if name in own else name

    for part in ast.walk(copy):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            part.name = number(part.name)
            if ast.get_docstring(part) is not None:
                part.body = part.body[1:] or [ast.Pass()]
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            part.returns = None
        elif isinstance(part, ast.arg):
            part.arg, part.annotation = number(part.arg), None
        elif isinstance(part, ast.Name):
            part.id = number(part.id)
    return copy


def _normalized_tests(problem: Problem) -> set[str]:
    """Each comparison `f(arguments) == result` of the tests, without the name of the function."""
    found = set()
    for test in problem.tests:
        if test.kind == "call":
            found.add(f"{test.input} -> {test.output}")
        elif test.kind == "stdio":
            found.add(f"{(test.stdin or '').strip()} -> {(test.stdout or '').strip()}")
        else:
            found |= _comparisons(test.code or "", problem.entry_point)
    return found


def _comparisons(code: str, entry_point: str | None) -> set[str]:
    try:
        tree = parse_program(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            text = ast.unparse(node.test)
            if text.endswith((" True", " False", " None")):  # any two yes-or-no functions share these
                continue
            text = re.sub(rf"\b(candidate|{re.escape(entry_point or 'candidate')})\(", "f(", text)
            if any(character.isdigit() or character in "'\"[" for character in text):
                found.add(re.sub(r"\s+", "", text))
    return found
