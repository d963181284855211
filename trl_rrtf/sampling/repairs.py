"""Repair turns: a candidate that fails its problem's public tests is shown how, and its model writes again.

A chain is a candidate with its repairs. In each turn the last program of every chain is run on the public tests; where it
fails, the failure goes behind the model's own answer, and the next answer is drawn from the whole conversation. Hidden tests
are never run here, so nothing of them can be in a prompt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from trl_rrtf.errors import ConfigError, JudgeError
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.failures import Failure, first_failures
from trl_rrtf.judging.isolation import probe_isolation
from trl_rrtf.judging.judge import Judge
from trl_rrtf.judging.preparation import check_tests
from trl_rrtf.models.paths import model_name
from trl_rrtf.problems import placed_problems
from trl_rrtf.rows.checks import message_text
from trl_rrtf.rows.prompts import render_prompt
from trl_rrtf.rows.public_tests import public_tests
from trl_rrtf.rows.records import CandidateGroup, Messages, Outcome
from trl_rrtf.rows.resumable import Journal
from trl_rrtf.sampling.config import SampleArguments, SamplingConfig
from trl_rrtf.sampling.draws import Sampler, StreamingSampler, room_of
from trl_rrtf.sampling.extraction import extract_program
from trl_rrtf.sampling.sampler import make_draws

REPAIR_LABELS = {
    "shown a failure": "shown a failed test, by turn",
    "repaired": "of these, then passed the public tests",
    "still failing": "still fail after the last turn",
    "could not be judged": "programs that could not be judged",
    "conversation too long": "repairs left out, conversation too long",
    "problems without public tests": "problems without public tests",
    "problems without hidden tests": "problems without hidden tests",
}
"""What the summary's table calls the counts of repair turns."""


@dataclass
class Turn:
    """What one turn did with the chains of a problem (of one model at one temperature), by their numbers.

    Attributes:
        failures: What is said of those that fail.
        not_judged: Those that the judge could not run; their chains end here.
        texts: What the model wrote for those that fail. None of them in the turn after the last repair, which only looks.
        too_long: Those that fail and whose conversation leaves no room for another answer; their chains end here.
    """

    failures: dict[int, str] = field(default_factory=dict)
    not_judged: list[int] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    too_long: list[int] = field(default_factory=list)

    def to_json(self) -> list[Any]:
        """For the journal."""
        return [list(self.failures.items()), self.not_judged, list(self.texts.items()), self.too_long]

    @classmethod
    def from_json(cls, piece: list[Any]) -> Self:
        """From the journal."""
        failures, not_judged, texts, too_long = piece
        return cls(dict(failures), not_judged, dict(texts), too_long)


@dataclass(frozen=True)
class Places:
    """Where each piece of the work stands in the journal: turn by turn (0 is the first draw), draw by draw, problem by problem.

    Attributes:
        num_draws: Models times temperatures.
        num_problems: Problems.
    """

    num_draws: int
    num_problems: int

    def of(self, turn: int, draw: int, problem: int) -> int:
        """The place of a piece."""
        return (turn * self.num_draws + draw) * self.num_problems + problem


@dataclass
class Repairs:
    """The repair turns of a run.

    Args:
        arguments: `repair_turns` and `public_tests` of the run.
        judging: Limits of the programs.
        places: Of the journal.
    """

    arguments: SampleArguments
    judging: JudgeConfig
    places: Places
    _judged: int = 0
    _not_judged: list[str] = field(default_factory=list)

    @property
    def turns(self) -> range:
        """The numbers of the turns; the last one only looks at what the one before wrote."""
        return range(1, self.arguments.repair_turns + 2)

    def run_turn(
        self,
        turn: int,
        draw: int,
        config: SamplingConfig,
        batch: Mapping[int, CandidateGroup],
        journal: Journal,
        judge: Judge,
        sampler: Callable[[], Sampler],
    ) -> Iterator[dict[int, Turn]]:
        """Runs a turn for a batch of problems.

        Args:
            turn: Number of the turn, from 1.
            draw: Number of the model and temperature.
            config: Their settings.
            batch: Index of a problem -> the problem.
            journal: What earlier turns did.
            judge: Runs the programs.
            sampler: Gives the model; called only if something is to be written.

        Yields:
            Place -> what was done: all at once, or as each problem is answered.

        Raises:
            JudgeError: Too many programs could not be judged.
        """
        earlier = {index: self.earlier_turns(journal, turn, draw, index) for index in batch}
        firsts: dict[int, list[str]] = {index: journal[self.places.of(0, draw, index)] for index in batch}
        last = {index: earlier[index][-1].texts if turn > 1 else dict(enumerate(firsts[index])) for index in batch}
        looked = self._look(batch, last, judge)
        finished = {index: one for index, one in looked.items() if not one.failures or turn == self.turns[-1]}
        yield {self.places.of(turn, draw, index): one for index, one in finished.items()}
        asked = [(index, chain) for index, one in looked.items() if index not in finished for chain in one.failures]
        if not asked:
            return
        prompts = [
            repair_prompt(batch[index], config.prompt_style, _links(firsts[index], [*earlier[index], looked[index]], chain))
            for index, chain in asked
        ]
        model = sampler()
        fits = [room is None or room >= config.max_new_tokens for room in (room_of(model, prompt) for prompt in prompts)]
        for index, chain in itertools.compress(asked, (not one for one in fits)):
            looked[index].too_long.append(chain)
        ended = {index: one for index, one in looked.items() if one.failures and len(one.too_long) == len(one.failures)}
        yield {self.places.of(turn, draw, index): one for index, one in ended.items() if index not in finished}
        asked, prompts = list(itertools.compress(asked, fits)), list(itertools.compress(prompts, fits))
        if not asked:
            return
        seeds = [[repair_seed(config, batch[index].problem_id, chain, turn)] for index, chain in asked]
        draws = dataclasses.replace(make_draws(config, [], model_name(config.model)), seeds=seeds)
        for number, text in _answers(model, prompts, draws):
            index, chain = asked[number]
            looked[index].texts[chain] = text
            if len(looked[index].texts) + len(looked[index].too_long) == len(looked[index].failures):
                texts = looked[index].texts
                in_order = {chain: texts[chain] for chain in looked[index].failures if chain in texts}  # not as they came
                yield {self.places.of(turn, draw, index): dataclasses.replace(looked[index], texts=in_order)}

    def earlier_turns(self, journal: Journal, before: int, draw: int, problem: int) -> list[Turn]:
        """What the turns before one did with a problem."""
        return [Turn.from_json(journal[self.places.of(turn, draw, problem)]) for turn in range(1, before)]

    def _look(self, batch: Mapping[int, CandidateGroup], last: Mapping[int, dict[int, str]], judge: Judge) -> dict[int, Turn]:
        """Runs the last program of each chain on the public tests; equal ones of a problem once."""
        turns = {index: Turn() for index in batch}
        programs: list[tuple[int, str]] = []
        chains: dict[tuple[int, str], list[int]] = {}
        for index, group in batch.items():
            if not public_tests(group, self.arguments.public_tests):
                continue
            for chain, text in last[index].items():
                chains.setdefault((index, extract_program(text, group)), []).append(chain)
        programs = list(chains)
        shown = {index: public_tests(batch[index], self.arguments.public_tests) for index, _ in programs}
        found = first_failures(judge, [(batch[index], program, shown[index]) for index, program in programs])
        for (index, program), failure in zip(programs, found, strict=True):
            if failure is None:
                continue
            for chain in chains[index, program]:
                if failure.verdict.outcome is Outcome.INFRASTRUCTURE:
                    turns[index].not_judged.append(chain)
                else:
                    turns[index].failures[chain] = failure.text()
        self._stop_if_too_many(batch, programs, found)
        return {index: Turn(dict(sorted(turn.failures.items())), sorted(turn.not_judged)) for index, turn in turns.items()}

    def _stop_if_too_many(
        self, batch: Mapping[int, CandidateGroup], programs: Sequence[tuple[int, str]], found: Sequence[Failure | None]
    ) -> None:
        self._judged += len(found)
        self._not_judged += [
            f"problem {batch[index].problem_id!r}: {failure.verdict.detail}"
            for (index, _), failure in zip(programs, found, strict=True)
            if failure is not None and failure.verdict.outcome is Outcome.INFRASTRUCTURE
        ]
        if self.judging.are_too_many(len(self._not_judged), self._judged):
            raise JudgeError(
                f"{len(self._not_judged)} of {self._judged} programs could not be judged on public tests, more than "
                f"`max_infrastructure_fraction={self.judging.max_infrastructure_fraction}`; the last ones: "
                f"{'; '.join(self._not_judged[-5:])}. What is drawn is kept; the same command goes on behind it"
            )

    def counts(self, journal: Journal) -> dict[str, Any]:
        """What the finished journal tells of all chains, for the summary."""
        shown, repaired, found = Counter[int](), Counter[int](), Counter[str]()
        for draw in range(self.places.num_draws):
            for problem in range(self.places.num_problems):
                turns = self.earlier_turns(journal, self.turns[-1] + 1, draw, problem)
                for number, (turn, after) in enumerate(itertools.pairwise(turns), start=1):
                    shown[number] += len(turn.texts)
                    repaired[number] += len(turn.texts.keys() - after.failures.keys() - set(after.not_judged))
                found["still failing"] += len(turns[-1].failures)
                found["not judged"] += sum(len(turn.not_judged) for turn in turns)
                found["too long"] += sum(len(turn.too_long) for turn in turns)
        numbers = list(self.turns[:-1])
        return {
            "shown a failure": [shown[number] for number in numbers],
            "repaired": [repaired[number] for number in numbers],
            "still failing": found["still failing"],
            "could not be judged": found["not judged"],
            "conversation too long": found["too long"],
        }


def check_repairs(arguments: SampleArguments, judging: JudgeConfig) -> dict[str, int]:
    """Checks the options of repair turns, and the public tests of every problem, before any model is loaded.

    Returns:
        How many problems have no public test, and how many no hidden one; empty without repair turns.

    Raises:
        RowError: The column `public_tests` holds no count, or one beyond the tests.
        ConfigError: An option would do nothing, no problem has a public test, or one cannot be run.
        JudgeError: The system lacks what `required_isolation` names.
    """
    if not arguments.repair_turns:
        if arguments.public_tests is not None:
            raise ConfigError("`public_tests`: only repair turns run tests, so it would do nothing; give `repair_turns` too")
        for option in dataclasses.fields(judging):
            if getattr(judging, option.name) != getattr(JudgeConfig(), option.name):
                raise ConfigError(f"`{option.name}`: only repair turns judge, so it would do nothing; give `repair_turns` too")
        return {}
    if arguments.cluster:
        raise ConfigError(
            "`repair_turns`: works on this machine alone, and `cluster` is given; leave one of them out (an endpoint that "
            "serves the model on the cluster does both: `--engine openai --base_url ...`)"
        )
    without_public = without_hidden = total = 0
    for where, problem in placed_problems(
        arguments.input, arguments.where, arguments.limit, skip_unusable=arguments.skip_unusable
    ):
        shown = public_tests(problem, arguments.public_tests)
        total += 1
        without_public += not shown
        without_hidden += len(shown) == len(problem.tests)
        if shown:
            check_tests([(where, dataclasses.replace(problem, tests=shown))])
    if without_public == total:
        raise ConfigError(
            "`repair_turns`: no problem has a public test, so no failure could be shown; say with `--public_tests N` how many "
            "of a problem's first tests are public, or give the problems the column `public_tests`"
        )
    if judging.required_isolation:
        probe_isolation(judging).require(judging.required_isolation)
    return {"problems without public tests": without_public, "problems without hidden tests": without_hidden}


def repair_prompt(problem: CandidateGroup, style: str, links: Sequence[tuple[str, str]]) -> str | Messages:
    """What a model is shown to repair its own answer.

    Args:
        problem: The problem.
        style: How its prompt is rendered.
        links: The chain so far: (answer, what is said of its failure).

    Returns:
        A conversation where the prompt is messages: each answer as the assistant's, each failure as the user's. Text else, with
        the failure as comments behind the answer, and behind it what the answer began from: nothing in the style `paper`,
        the prompt again (a signature, say) in the style `completion`.
    """
    prompt = render_prompt(problem, style)
    if not isinstance(prompt, str):
        return _conversation(prompt, links)
    again = prompt if style == "completion" else ""
    text = prompt
    for answer, failure in links:
        said = _as_comments(f"The program above is wrong.\n{failure}\nThe corrected program:")
        text = f"{text}{answer.rstrip()}\n\n{said}\n{again}"
    return text


def _as_comments(text: str) -> str:
    """Whatever stands in the text, and no value in it altered: in a string, its own quotes would end it."""
    return re.sub(r"^", "# ", re.sub(r"\r\n?", "\n", text), flags=re.MULTILINE)


def _conversation(prompt: Messages, links: Sequence[tuple[str, str]]) -> Messages:
    messages = [dict(message) for message in prompt]
    for answer, failure in links:
        if messages[-1]["role"] == "assistant":  # a prefill, from which the answer goes on
            answer = message_text(messages.pop(), "a prompt", "prompt") + answer
        said = f"The program is wrong.\n\n{failure}\n\nWrite the whole program again, corrected. Answer with code only."
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": said}]
    return messages


def repair_seed(config: SamplingConfig, problem_id: str, chain: int, turn: int) -> int:
    """The seed of a repair, that no other text of the run has.

    Args:
        config: Its `seed`, `temperature` and `model`.
        problem_id: The problem.
        chain: Number of the candidate that was drawn first.
        turn: Number of the turn, from 1.

    Returns:
        A number below 2^31.
    """
    key = f"{config.seed}/{model_name(config.model)}/{config.temperature}/{problem_id}/{chain}/repair {turn}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) >> 1


def _links(firsts: Sequence[str], turns: Sequence[Turn], chain: int) -> list[tuple[str, str]]:
    answers = [firsts[chain], *(turn.texts[chain] for turn in turns[:-1])]
    return [(answer, turn.failures[chain]) for answer, turn in zip(answers, turns, strict=True)]


def _answers(sampler: Sampler, prompts: list[str | Messages], draws: Any) -> Iterator[tuple[int, str]]:
    if isinstance(sampler, StreamingSampler):
        answered = sampler.stream(prompts, draws)
    else:
        answered = enumerate(sampler.sample(prompts, draws))
    for number, (text,) in answered:
        yield number, text
