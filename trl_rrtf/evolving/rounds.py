"""What happens to a batch of problems in one round: the teacher rewrites them, and gives them tests that the judge checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

from trl_rrtf.errors import ConfigError
from trl_rrtf.evolving.config import EvolveConfig, TeacherConfig
from trl_rrtf.evolving.rewriting import EliminationLimits, choose_method, evolving_prompt, reason_to_eliminate
from trl_rrtf.evolving.synthesis import called_function, find_assertions, kept_tests, mutants, synthesis_prompt
from trl_rrtf.judging.judge import Judge
from trl_rrtf.judging.preparation import prepare
from trl_rrtf.rows.records import Outcome, Problem, UnitTest
from trl_rrtf.sampling.draws import Sampler
from trl_rrtf.sampling.extraction import extract_program
from trl_rrtf.sampling.sampler import make_draws

_MAX_MUTANTS = 8

_INHERITED_COLUMNS = ("license", "split")
"""A user's columns that hold for what is made of a problem too."""


@dataclass(kw_only=True)
class Evolution:
    """A problem on its way through the rounds: a row of a round's file.

    Attributes:
        problem: The problem.
        seed_id: The seed that it comes from in the end.
        parent_id: The problem that it was made from, or None for a seed.
        round: The round that made it, or 0 for a seed.
        method: A key of [`METHODS`][trl_rrtf.evolving.rewriting.METHODS], or None for a seed.
        eliminated: Why it is dropped, or None.
    """

    problem: Problem
    seed_id: str
    parent_id: str | None = None
    round: int = 0
    method: str | None = None
    eliminated: str | None = None

    @classmethod
    def of_seed(cls, problem: Problem) -> Self:
        """The start of a line."""
        return cls(problem=problem, seed_id=problem.problem_id)

    @classmethod
    def from_row(cls, row: Any, where: str) -> Self:
        """Builds the object of a row that `to_row` made."""
        return cls(**{**row, "problem": Problem.from_row(row["problem"], where, require_tests=False)})

    def to_row(self) -> dict[str, Any]:
        """The evolution as a plain dictionary."""
        return {**vars(self), "problem": self.problem.to_row()}

    def with_lineage(self) -> Problem:
        """The problem as it is written for the user, with the columns that tell where it comes from."""
        lineage = {"parent_id": self.parent_id, "seed_id": self.seed_id, "round": self.round, "method": self.method}
        return replace(self.problem, extra={**self.problem.extra, **lineage})


def evolved_id(seed_id: str, round_number: int) -> str:
    """What the evolution of a seed is called in a round."""
    return f"{seed_id}#r{round_number}"


class Round:
    """One round: every parent becomes one row, an evolution or an eliminated one.

    Args:
        number: From 1.
        config: Rules and tests.
        teacher: How the teacher writes.
        sampler: The teacher.
        judge: Checks the tests.
    """

    def __init__(self, number: int, config: EvolveConfig, teacher: TeacherConfig, sampler: Sampler, judge: Judge) -> None:
        self._number, self._config, self._teacher = number, config, teacher
        self._sampler, self._judge = sampler, judge
        self._limits = EliminationLimits(max_similarity=config.max_similarity, max_growth=config.max_growth)

    def evolve(self, parents: Sequence[Evolution]) -> list[Evolution]:
        """Evolves a batch of parents, none of them eliminated."""
        methods = [
            choose_method(parent.problem.problem_id, self._number, self._teacher.seed, self._config.methods)
            for parent in parents
        ]
        prompts = [evolving_prompt(_text(parent.problem), method) for parent, method in zip(parents, methods, strict=True)]
        answers = self._ask(prompts, [parent.problem for parent in parents], "evolve", self._teacher.num_generations)
        evolved = [
            self._first_good(parent, method, texts) for parent, method, texts in zip(parents, methods, answers, strict=True)
        ]
        alive = [evolution for evolution in evolved if evolution.eliminated is None]
        if self._config.synthesize_tests and alive:
            self._synthesize_tests(alive)
        return evolved

    def _ask(self, prompts: Sequence[str], problems: Sequence[Problem], purpose: str, number: int) -> list[list[str]]:
        keys = [f"{purpose}/{self._number}/{problem.problem_id}" for problem in problems]
        draws = make_draws(replace(self._teacher, num_generations=number), keys, self._teacher.model)
        return self._sampler.sample([[{"role": "user", "content": prompt}] for prompt in prompts], draws)

    def _first_good(self, parent: Evolution, method: str, texts: Sequence[str]) -> Evolution:
        reasons = [reason_to_eliminate(text, _text(parent.problem), self._limits) for text in texts]
        chosen = reasons.index(None) if None in reasons else 0
        inherited = {name: parent.problem.extra[name] for name in _INHERITED_COLUMNS if name in parent.problem.extra}
        problem = Problem(
            problem_id=evolved_id(parent.seed_id, self._number),
            prompt=texts[chosen].strip() or "(nothing)",
            tests=[],
            extra=inherited,
        )
        return Evolution(
            problem=problem,
            seed_id=parent.seed_id,
            parent_id=parent.problem.problem_id,
            round=self._number,
            method=method,
            eliminated=reasons[chosen],
        )

    def _synthesize_tests(self, evolutions: Sequence[Evolution]) -> None:
        """Gives each problem its tests and reference solution, or eliminates it."""
        prompts = [synthesis_prompt(_text(evolution.problem), self._config.num_tests) for evolution in evolutions]
        answers = self._ask(prompts, [evolution.problem for evolution in evolutions], "tests", 1)
        for evolution, (answer,) in zip(evolutions, answers, strict=True):
            _take_tests(evolution, answer)
        tested = [evolution for evolution in evolutions if evolution.problem.tests]
        if not tested:
            return
        for evolution, solutions in zip(tested, self._solutions([evolution.problem for evolution in tested]), strict=True):
            self._check_tests(evolution, solutions)

    def _solutions(self, problems: Sequence[Problem]) -> list[list[str]]:
        """Independent solutions of each problem, which vote on its tests."""
        if not self._config.num_votes:
            return [[] for _ in problems]
        texts = [
            f"Write a Python function `{problem.entry_point}` for this task. Answer with code only.\n\n{_text(problem)}"
            for problem in problems
        ]
        answers = self._ask(texts, problems, "votes", self._config.num_votes)
        return [
            [extract_program(text, problem) for text in answers_of_one]
            for problem, answers_of_one in zip(problems, answers, strict=True)
        ]

    def _check_tests(self, evolution: Evolution, solutions: list[str]) -> None:
        problem = evolution.problem
        reference = problem.reference_solution or ""
        changed = list(islice(mutants(reference), _MAX_MUTANTS))
        passes = self._passes(problem, [reference, *solutions, *changed])
        votes, killed = passes[1 : 1 + len(solutions)], [[not held for held in row] for row in passes[1 + len(solutions) :]]
        kept, reason = kept_tests(passes[0], votes, killed, self._config.min_tests)
        if reason is None and solutions and not any(all(row[index] for index in kept) for row in votes):
            reason = "unsolved_by_every_candidate"
        problem.tests = [problem.tests[index] for index in kept] if reason is None else []
        evolution.eliminated = reason

    def _passes(self, problem: Problem, programs: list[str]) -> list[list[bool]]:
        """Whether each program passes each test."""
        single = [replace(problem, tests=[test]) for test in problem.tests]
        verdicts = self._judge.judge_many((one, program) for one in single for program in programs)
        by_test = [[next(verdicts).outcome is Outcome.PASSED for _ in programs] for _ in single]
        return [list(column) for column in zip(*by_test, strict=True)]


def _take_tests(evolution: Evolution, answer: str) -> None:
    """Takes solution and tests out of the teacher's answer, or eliminates the problem where they are missing."""
    problem = evolution.problem
    assertions = find_assertions(answer)
    program = extract_program(answer, problem)
    try:
        problem.entry_point = called_function(assertions, program)
    except SyntaxError:
        problem.entry_point = None
    if problem.entry_point is None:
        evolution.eliminated = "no_solution_with_tests"
        return
    # Once more: now that the function's name is known, the block that defines it is found.
    problem.reference_solution = extract_program(answer, problem)
    problem.tests = [UnitTest(kind="assert", code=line) for line in assertions]
    try:
        prepare(problem)
    except ConfigError:  # such as an import of a package that is not here
        evolution.eliminated = "no_solution_with_tests"


def _text(problem: Problem) -> str:
    prompt = problem.prompt
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)
