"""What can choose between the candidates of a problem: each signal gives every candidate a number, larger is better.

No signal sees a hidden test: the problems that it gets hold the public tests alone, and the candidates no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from trl_rrtf.errors import JudgeError
from trl_rrtf.evaluation.config import SelectConfig
from trl_rrtf.evaluation.generated_inputs import GeneratedInputs, generate_inputs
from trl_rrtf.evaluation.same_outputs import Output, agreements, output_of
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.rows.public_tests import public_tests
from trl_rrtf.rows.records import Candidate, CandidateGroup, Outcome, Problem, Verdict


@dataclass(kw_only=True)
class Contest:
    """A problem as a model may see it, and those of its candidates that can be chosen.

    Attributes:
        problem: Its tests are the public ones, perhaps none; it has no reference solution.
        candidates: Without verdicts, in the order in which they were drawn.
    """

    problem: Problem
    candidates: list[Candidate]

    @classmethod
    def of(cls, group: CandidateGroup, positions: Sequence[int], num_public: int | None) -> Self:
        """Takes the hidden tests and all verdicts away.

        Args:
            group: The group.
            positions: Which of its candidates can be chosen.
            num_public: How many tests are public where the row does not say.

        Raises:
            RowError: What the row says of its public tests is wrong.
        """
        problem = Problem(
            problem_id=group.problem_id,
            prompt=group.prompt,
            tests=public_tests(group, num_public),
            entry_point=group.entry_point,
            setup_code=group.setup_code,
        )
        return cls(problem=problem, candidates=[replace(group.candidates[i], verdict=None) for i in positions])

    @property
    def programs(self) -> list[str]:
        """The different programs."""
        return list(dict.fromkeys(candidate.program for candidate in self.candidates))


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What a signal says of a contest.

    Attributes:
        values: A number per candidate, larger is better. None is below every number: an empty program has no log-probability.
            All None: the signal says nothing of this problem.
        unjudged: Positions of candidates of which the judge could not tell.
    """

    values: list[float | None]
    unjudged: frozenset[int] = field(default_factory=frozenset)

    @property
    def says_nothing(self) -> bool:
        """Whether no candidate has a number."""
        return all(value is None for value in self.values)


class Signal(Protocol):
    """One way to choose."""

    def opinions(self, contests: Sequence[Contest]) -> list[Opinion]:
        """An opinion per contest."""


class PublicTests:
    """How many public tests a candidate passes.

    Args:
        judge: The judge.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._failures = _Failures(judge.config)

    def opinions(self, contests: Sequence[Contest]) -> list[Opinion]:
        """The numbers of tests; nothing where a problem has no public one.

        Raises:
            JudgeError: Too many candidates could not be judged.
        """
        judged = [contest for contest in contests if contest.problem.tests]
        verdicts = self._judge.judge_many((contest.problem, program) for contest in judged for program in contest.programs)
        return [
            self._opinion(contest, dict(zip(contest.programs, verdicts, strict=False)))
            if contest.problem.tests
            else Opinion(values=[None] * len(contest.candidates))
            for contest in contests
        ]

    def _opinion(self, contest: Contest, verdicts: dict[str, Verdict]) -> Opinion:
        found = [verdicts[candidate.program] for candidate in contest.candidates]
        unjudged = frozenset(i for i, verdict in enumerate(found) if verdict.outcome is Outcome.INFRASTRUCTURE)
        self._failures.count(contest, len(unjudged))
        return Opinion(
            values=[None if i in unjudged else float(verdict.passed) for i, verdict in enumerate(found)], unjudged=unjudged
        )


class _Failures:
    """Counts candidates of which the judge could not tell."""

    def __init__(self, config: JudgeConfig) -> None:
        self._config = config
        self._candidates = self._found = 0

    def count(self, contest: Contest, failures: int) -> None:
        """Raises a JudgeError above the share that is allowed."""
        self._candidates += len(contest.candidates)
        self._found += failures
        if self._config.are_too_many(self._found, self._candidates):
            raise JudgeError(
                f"{self._found} of {self._candidates} candidates could not be judged or observed, more than "
                f"`max_infrastructure_fraction={self._config.max_infrastructure_fraction}`; the last ones up to "
                f"problem {contest.problem.problem_id!r}. What is done is kept; the same command goes on behind it"
            )


class Agreement:
    """How many candidates give the same outputs on generated inputs.

    Candidates are grouped by their outputs on all inputs, as AlphaCode (arXiv 2203.07814, section 4.6) clusters its samples and
    CodeT (arXiv 2207.10397) counts a consensus set; see `agreements` of `same_outputs.py`.

    Args:
        judge: Runs the programs; its `number_tolerance` says when two numbers are the same output.
        config: Number of inputs, and their seed.
    """

    def __init__(self, judge: Judge, config: SelectConfig) -> None:
        self._judge, self._config = judge, config
        self._failures = _Failures(judge.config)

    def opinions(self, contests: Sequence[Contest]) -> list[Opinion]:
        """The agreements; nothing where no input could be generated, or what most programs give has no text.

        Raises:
            JudgeError: Too many candidates could not be observed.
        """
        inputs = [inputs_of(contest.problem, self._config) for contest in contests]
        outputs: list[dict[str, list[Output] | None]] = [{} for _ in contests]
        for kind in ("expression", "stdin"):
            runs = [
                (i, program)
                for i, made in enumerate(inputs)
                if made.kind == kind and made.texts
                for program in contests[i].programs
            ]
            observed = self._judge.observe_many(
                ((contests[i].problem, program, inputs[i].texts) for i, program in runs), kind=kind
            )
            for (i, program), observations in zip(runs, observed, strict=True):
                is_failure = any(observation.is_infrastructure for observation in observations)
                outputs[i][program] = None if is_failure else [output_of(observation) for observation in observations]
        return [self._opinion(contest, outputs[i], inputs[i].kind) for i, contest in enumerate(contests)]

    def _opinion(self, contest: Contest, outputs: dict[str, list[Output] | None], kind: str) -> Opinion:
        found = [outputs.get(candidate.program) for candidate in contest.candidates]
        observed = {i: own for i, own in enumerate(found) if own is not None}
        found_values = agreements(list(observed.values()), kind, self._judge.config.number_tolerance)
        values = dict(zip(observed, found_values, strict=True))
        unjudged = frozenset(range(len(found))) - observed.keys() if outputs else frozenset[int]()
        self._failures.count(contest, len(unjudged))
        return Opinion(values=[values.get(i) for i in range(len(found))], unjudged=unjudged)


def inputs_of(problem: Problem, config: SelectConfig) -> GeneratedInputs:
    """The inputs on which the candidates of a problem are compared.

    Args:
        problem: With its public tests alone.
        config: Number of inputs, and their seed.
    """
    return generate_inputs(problem, problem.tests, config.num_inputs, config.seed)


class LogProbability:
    """The mean log-probability of a candidate per token, in nats, as its `teacher_log_prob` has it."""

    def opinions(self, contests: Sequence[Contest]) -> list[Opinion]:
        """The log-probabilities."""
        return [Opinion(values=[candidate.teacher_log_prob for candidate in contest.candidates]) for contest in contests]


class RewardModel:
    """The score of a reward model, used as TRL's trainers use theirs.

    A prompt that is messages, and the candidate as the assistant's message, are rendered with the model's chat template; a
    prompt that is text stands before the candidate.

    Args:
        config: Model, prompt style, precision and batch size.
    """

    def __init__(self, config: SelectConfig) -> None:
        from trl_rrtf.evaluation.reward_model import RewardModelScorer

        self._scorer = RewardModelScorer(config)

    def opinions(self, contests: Sequence[Contest]) -> list[Opinion]:
        """The scores; texts of all contests share batches.

        Raises:
            ConfigError: A score is no finite number.
        """
        pairs = [(contest.problem, program) for contest in contests for program in contest.programs]
        scores = iter(self._scorer.scores(pairs))
        return [Opinion(values=list(self._values(contest, scores))) for contest in contests]

    def _values(self, contest: Contest, scores: Iterator[float]) -> list[float]:
        of_program = {program: next(scores) for program in contest.programs}
        return [of_program[candidate.program] for candidate in contest.candidates]
