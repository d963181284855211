"""The `evolve` command: Evol-Instruct in rounds, with tests written by the teacher and checked by the judge.

Each round asks the teacher to make every surviving problem a bit harder, drops failed evolutions by the rules of
`problems/evolution.py`, and gives the rest tests by those of `problems/test_synthesis.py`. What a round made stands in
`OUTPUT.rounds/`, so a killed run goes on with the batch where it stopped.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import Outcome, Problem, UnitTest
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.problems import iterate_problems
from trl_rrtf.problems.evolution import METHODS, EliminationLimits, choose_method, evolving_prompt, reason_to_eliminate
from trl_rrtf.problems.test_synthesis import called_function, find_assertions, kept_tests, mutants, synthesis_prompt
from trl_rrtf.row_files import ResumableWriter, fingerprint, write_json
from trl_rrtf.sampling import Sampler, SamplingConfig, extract_program, make_sampler
from trl_rrtf.sampling.sampler import candidate_seeds

_MAX_MUTANTS = 8


@dataclass
class EvolveArguments:
    """Files of the `evolve` command.

    Attributes:
        problems: Seed problems; they need no tests.
        output: Evolved problems, `.jsonl` or `.parquet`; what was dropped and why goes to `OUTPUT.report.json`.
        where: Which seeds, such as `split=train`.
        limit: The first so many seeds.
        overwrite: Throw away an earlier output.
    """

    problems: str = field(metadata={"help": "Seed problems: a file, a Hub data set id, or `humaneval`. They need no tests."})
    output: str = field(metadata={"help": "Where the evolved problems go (.jsonl or .parquet); the report goes beside it."})
    where: str | None = field(default=None, metadata={"help": "Only seeds with this value, such as `split=train`."})
    limit: int | None = field(default=None, metadata={"help": "Only the first so many seeds."})
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier output."})


@dataclass
class EvolveConfig:
    """How problems evolve and get tests.

    Attributes:
        rounds: Rounds; WizardCoder has 3.
        methods: Which of the five methods are used.
        keep_seeds: Whether the seeds stand in the output too (those with tests, where tests are asked for).
        max_similarity: Similarity from which an evolution repeats its parent.
        max_growth: Longest statement, as a multiple of its parent.
        synthesize_tests: Whether evolved problems get tests; without them they cannot be judged.
        num_tests: Assertions that the teacher is asked for.
        min_tests: Fewest tests that must be left.
        num_votes: Independent solutions that vote on each test.

    Raises:
        ConfigError: A value is out of range.
    """

    rounds: int = field(default=3, metadata={"help": "Rounds of evolution."})
    methods: list[str] = field(
        default_factory=lambda: list(METHODS),
        metadata={"help": "Which of the five methods are used.", "choices": list(METHODS)},
    )
    keep_seeds: bool = field(default=False, metadata={"help": "Put the seeds (those with tests) into the output too."})
    max_similarity: float = field(default=0.9, metadata={"help": "An evolution that is so similar to its parent is dropped."})
    max_growth: float = field(default=4.0, metadata={"help": "Longest statement, as a multiple of its parent."})
    synthesize_tests: bool = field(default=True, metadata={"help": "Have the teacher write tests, and check them."})
    num_tests: int = field(default=8, metadata={"help": "Assertions that the teacher is asked for."})
    min_tests: int = field(default=5, metadata={"help": "Fewest tests that must be left, else the problem is dropped."})
    num_votes: int = field(default=3, metadata={"help": "Independent solutions that vote on each test."})

    def __post_init__(self) -> None:
        """Checks the values."""
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown or not self.methods:
            raise ConfigError(f"`methods`: expected some of {', '.join(METHODS)}, got {', '.join(unknown) or 'none'}")
        if self.rounds < 1 or self.num_votes < 0:
            raise ConfigError(f"`rounds`, `num_votes`: expected at least 1 and 0, got {self.rounds} and {self.num_votes}")
        if not 1 <= self.min_tests <= self.num_tests:
            raise ConfigError(f"`min_tests`: expected 1 to `num_tests` ({self.num_tests}), got {self.min_tests}")
        if not 0 < self.max_similarity <= 1 or self.max_growth <= 1:
            raise ConfigError(
                "`max_similarity`, `max_growth`: expected a number up to 1, and one above 1, got "
                f"{self.max_similarity} and {self.max_growth}"
            )


@dataclass
class TeacherConfig(SamplingConfig):
    """The teacher: as in `sample`; `num_generations` is how many evolutions are tried, of which the first good one stays."""

    source: str = field(default="teacher", metadata={"help": "What the model is.", "choices": ["student", "teacher"]})
    num_generations: int = field(default=2, metadata={"help": "Evolutions that are tried; the first good one stays."})
    max_new_tokens: int = field(default=1024, metadata={"help": "Longest answer, in tokens."})


def run_evolve(
    arguments: EvolveArguments,
    config: EvolveConfig,
    teacher: TeacherConfig,
    judging: JudgeConfig,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    """Evolves problems; an interrupted run goes on with the batch where it stopped.

    Args:
        arguments: Files.
        config: Rounds, rules and tests.
        teacher: The model that writes.
        judging: Limits of the judge that checks the tests.
        sampler: A loaded model; by default that of `teacher`, loaded when it is needed.

    Returns:
        A summary: seeds, survivors of each round, eliminations by reason.

    Raises:
        LoadError: The seeds or the model are not there.
        RowError: A row breaks the format; found before the model is loaded.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: rapidfuzz is missing, or nothing survives.
    """
    _require_rapidfuzz()
    num_seeds = sum(1 for _ in _seeds(arguments))
    source = fingerprint(arguments.problems) if Path(arguments.problems).exists() else arguments.problems
    selection = {"problems": source, "where": arguments.where, "limit": arguments.limit}
    settings = {"stage": "evolve", **selection, **asdict(config), "teacher": asdict(teacher), "timeout": judging.timeout}
    folder = Path(f"{arguments.output}.rounds")
    if arguments.overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    with ResumableWriter(arguments.output, settings, overwrite=arguments.overwrite) as writer:
        if not writer.finished:
            rounds = [folder / f"round-{number}.jsonl" for number in range(1, config.rounds + 1)]
            with Judge(judging) as judge:
                for number, path in enumerate(rounds, start=1):
                    sampler = sampler or make_sampler(teacher)
                    writes = _Round(number, config, teacher, sampler, judge)
                    parents = _survivors(rounds[number - 2]) if number > 1 else _seeds(arguments)
                    writes.run(parents, path, settings)
            survivors = chain.from_iterable(map(_survivors, rounds))
            seeds = (seed for seed in _seeds(arguments) if config.keep_seeds and (seed.tests or not config.synthesize_tests))
            report = _report(rounds, num_seeds)
            if not any(report["survivors by round"]):
                raise ConfigError(f"`problems`: no evolution survived ({report['eliminated']}); try another teacher")
            write_json(f"{arguments.output}.report.json", {**report, "settings": settings})
            writer.write(islice(chain(seeds, survivors), writer.rows_done, None))
            writer.finish()
            shutil.rmtree(folder)
        else:
            report = _finished_report(arguments.output)
    kept = dict(enumerate(report["survivors by round"], start=1))
    return {
        "seeds": num_seeds,
        **{f"survivors of round {number}": count for number, count in kept.items()},
        **{f"eliminated: {reason}": count for reason, count in report["eliminated"].items()},
        "output": arguments.output,
    }


def _require_rapidfuzz() -> None:
    if importlib.util.find_spec("rapidfuzz") is None:
        raise ConfigError("comparing evolutions with their parents needs the package rapidfuzz; install `trl-rrtf[filters]`")


def _seeds(arguments: EvolveArguments) -> Iterator[Problem]:
    return iterate_problems(arguments.problems, arguments.where, arguments.limit, require_tests=False)


def _survivors(path: Path) -> Iterator[Problem]:
    return (problem for problem in _evolutions(path) if "eliminated" not in problem.extra)


def _evolutions(path: Path) -> Iterator[Problem]:
    return iterate_problems(str(path), require_tests=False) if path.stat().st_size else iter(())


def _report(rounds: Sequence[Path], num_seeds: int) -> dict[str, Any]:
    survivors, reasons, dropped = [], Counter[str](), list[dict[str, Any]]()
    for path in rounds:
        count = 0
        for problem in _evolutions(path):
            reason = problem.extra.get("eliminated")
            if reason is None:
                count += 1
                continue
            reasons[reason] += 1
            dropped.append({"problem_id": problem.problem_id, "reason": reason, "method": problem.extra["method"]})
        survivors.append(count)
    return {"seeds": num_seeds, "survivors by round": survivors, "eliminated": dict(reasons), "dropped": dropped}


def _finished_report(output: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(Path(f"{output}.report.json").read_text(encoding="utf-8"))
    return report


class _Round:
    """One round: every parent becomes one row, an evolution or an eliminated one."""

    def __init__(self, number: int, config: EvolveConfig, teacher: TeacherConfig, sampler: Sampler, judge: Judge) -> None:
        self._number, self._config, self._teacher = number, config, teacher
        self._sampler, self._judge = sampler, judge
        self._limits = EliminationLimits(max_similarity=config.max_similarity, max_growth=config.max_growth)

    def run(self, parents: Iterator[Problem], path: Path, settings: dict[str, Any]) -> None:
        with ResumableWriter(path, settings, rows_per_step=self._teacher.batch_size) as writer:
            if writer.finished:
                return
            todo = islice(parents, writer.rows_done, None)
            with tqdm(initial=writer.rows_done, desc=f"evolve, round {self._number}", unit="problem") as bar:
                while batch := list(islice(todo, self._teacher.batch_size)):
                    writer.write(self._evolve(batch))
                    bar.update(len(batch))
            writer.finish()

    def _evolve(self, parents: list[Problem]) -> list[Problem]:
        methods = [
            choose_method(parent.problem_id, self._number, self._teacher.seed, self._config.methods) for parent in parents
        ]
        prompts = [evolving_prompt(_text(parent), method) for parent, method in zip(parents, methods, strict=True)]
        answers = self._ask(prompts, parents, "evolve", self._teacher.num_generations)
        evolved = [
            self._first_good(parent, method, texts) for parent, method, texts in zip(parents, methods, answers, strict=True)
        ]
        if self._config.synthesize_tests:
            alive = [problem for problem in evolved if "eliminated" not in problem.extra]
            if alive:
                self._synthesize_tests(alive)
        return evolved

    def _ask(self, prompts: Sequence[str], problems: Sequence[Problem], purpose: str, number: int) -> list[list[str]]:
        draws = replace(self._teacher, num_generations=number)
        seeds = [candidate_seeds(draws, f"{purpose}/{self._number}/{problem.problem_id}", draws.model) for problem in problems]
        return self._sampler.sample(
            [[{"role": "user", "content": prompt}] for prompt in prompts],
            seeds=seeds,
            temperature=draws.temperature,
            top_p=draws.top_p,
            top_k=draws.top_k,
            max_new_tokens=draws.max_new_tokens,
            stop_strings=draws.stop_strings,
        )

    def _first_good(self, parent: Problem, method: str, texts: Sequence[str]) -> Problem:
        seed_id = parent.extra.get("seed_id", parent.problem_id)
        reasons = [reason_to_eliminate(text, _text(parent), self._limits) for text in texts]
        chosen = reasons.index(None) if None in reasons else 0
        lineage: dict[str, Any] = {"parent_id": parent.problem_id, "seed_id": seed_id, "round": self._number, "method": method}
        if reasons[chosen] is not None:
            lineage["eliminated"] = reasons[chosen]
        inherited: dict[str, Any] = {name: parent.extra[name] for name in ("license", "split") if name in parent.extra}
        prompt = texts[chosen].strip() or "(nothing)"
        return Problem(problem_id=f"{seed_id}#r{self._number}", prompt=prompt, tests=[], extra={**inherited, **lineage})

    def _synthesize_tests(self, problems: list[Problem]) -> None:
        """Gives each problem its tests and reference solution, or marks it as eliminated."""
        prompts = [synthesis_prompt(_text(problem), self._config.num_tests) for problem in problems]
        answers = self._ask(prompts, problems, "tests", 1)
        for problem, (answer,) in zip(problems, answers, strict=True):
            assertions = find_assertions(answer)
            program = extract_program(answer, problem)
            try:
                problem.entry_point = called_function(assertions, program)
            except SyntaxError:
                problem.entry_point = None
            if problem.entry_point is None:
                problem.extra["eliminated"] = "no_solution_with_tests"
                continue
            problem.reference_solution = extract_program(answer, problem)
            problem.tests = [UnitTest(kind="assert", code=line) for line in assertions]
        tested = [problem for problem in problems if problem.tests]
        if not tested:
            return
        texts = [
            f"Write a Python function `{problem.entry_point}` for this task. Answer with code only.\n\n{_text(problem)}"
            for problem in tested
        ]
        votes = self._ask(texts, tested, "votes", self._config.num_votes) if self._config.num_votes else [[] for _ in tested]
        for problem, answers_of_one in zip(tested, votes, strict=True):
            self._check_tests(problem, [extract_program(text, problem) for text in answers_of_one])

    def _check_tests(self, problem: Problem, solutions: list[str]) -> None:
        reference = problem.reference_solution or ""
        changed = list(islice(mutants(reference), _MAX_MUTANTS))
        passes = self._passes(problem, [reference, *solutions, *changed])
        votes, killed = passes[1 : 1 + len(solutions)], [[not held for held in row] for row in passes[1 + len(solutions) :]]
        kept, reason = kept_tests(passes[0], votes, killed, self._config.min_tests)
        if reason is None and solutions and not any(all(row[index] for index in kept) for row in votes):
            reason = "unsolved_by_every_candidate"
        problem.tests = [problem.tests[index] for index in kept]
        if reason is not None:
            problem.tests, problem.extra["eliminated"] = [], reason

    def _passes(self, problem: Problem, programs: list[str]) -> list[list[bool]]:
        """Whether each program passes each test."""
        single = [replace(problem, tests=[test]) for test in problem.tests]
        verdicts = self._judge.judge_many((one, program) for one in single for program in programs)
        by_test = [[next(verdicts).outcome is Outcome.PASSED for _ in programs] for _ in single]
        return [list(column) for column in zip(*by_test, strict=True)]


def _text(problem: Problem) -> str:
    prompt = problem.prompt
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)
