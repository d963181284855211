"""The `select` stage: one program per problem out of its n candidates, and what the choice is worth."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self

from trl_rrtf.errors import ConfigError, JudgeError, OutputError, RowError
from trl_rrtf.evaluation.best_of_n import BestOfN
from trl_rrtf.evaluation.choice import COLUMN, Choice, choosable, is_from, is_own_column, tallies
from trl_rrtf.evaluation.config import SelectArguments, SelectConfig
from trl_rrtf.evaluation.result import Count, Evaluation, ProblemResult, library_versions
from trl_rrtf.evaluation.reward_model import check_reward_model
from trl_rrtf.evaluation.signals import (
    Agreement,
    Contest,
    LogProbability,
    PublicTests,
    RewardModel,
    Signal,
    inputs_of,
)
from trl_rrtf.judging.config import JudgeArguments, JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.judging.preparation import check_tests
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.models.paths import model_fingerprint, model_name, require_model
from trl_rrtf.options import SIDE_FILES, settings_of
from trl_rrtf.rows.files import check_rows, fingerprint, iterate_rows, stream_rows, write_json
from trl_rrtf.rows.public_tests import public_tests
from trl_rrtf.rows.records import CandidateGroup, Outcome
from trl_rrtf.rows.resumable import require_same_settings
from trl_rrtf.rows.stage import RowStage
from trl_rrtf.rows.summary import Summary, of_this_run
from trl_rrtf.sampling import TeacherLogProbsArguments, TeacherLogProbsConfig, run_teacher_log_probs

_logger = logging.getLogger(__name__)

_SAYS = {
    "public_tests": "public tests",
    "agreement": "generated inputs",
    "log_probability": "log-probabilities",
    "reward_model": "scores",
}
"""What a problem lacks where a signal says nothing of it."""

_GROUPS_AT_ONCE = 32
"""Groups whose programs run side by side, and whose texts share the batches of a model."""


@dataclass(kw_only=True)
class SelectSummary(Summary):
    """What the `select` stage did.

    Attributes:
        problems: Problems.
        candidates: Candidates that could be chosen.
        repairs: Repairs among them, which one sample does not count.
        fewest: Fewest of a problem.
        most: Most of a problem.
        drawn_from: Source and model, such as `student m` -> candidates; those of which the judge could not tell too.
        references: Reference solutions, which are never chosen nor counted.
        other_sources: Candidates of another source than `source`.
        left_out: Candidates that the judge could not judge.
        narrowed_by: Signal -> problems where it ruled out some program that the earlier signals had left.
        ties: Problems in which different programs were equal in all signals, so that the first one drawn was chosen.
        silent: Signal -> problems of which it was asked, and says nothing.
        public_tests: Public tests of all problems, which `public_tests` sees.
        tests: Tests of all problems.
        all_public: Problems whose tests are all public, so that nothing that the choice is measured by is hidden from it.
        best_of_n: What the choice is worth; None where candidates have no verdicts.
        output: The groups of one chosen candidate.
        evaluation: File of the evaluation, or None.
    """

    problems: int
    candidates: int
    repairs: int
    fewest: int
    most: int
    drawn_from: dict[str, int]
    references: int
    other_sources: int
    left_out: int
    narrowed_by: dict[str, int]
    ties: int
    silent: dict[str, int]
    public_tests: int
    tests: int
    all_public: int
    best_of_n: BestOfN | None
    output: str
    evaluation: str | None = of_this_run(None)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The summary that was kept."""
        best = values.get("best_of_n")
        return cls(**{**values, "best_of_n": best and BestOfN.from_json(best)})

    def table(self) -> dict[str, Any]:
        """What to show: label -> value."""
        differ = f"{self.fewest} to {self.most} of a problem: n differs"
        shown: dict[str, Any] = {
            "problems": self.problems,
            "candidates": f"{self.candidates} ({self.most} of each problem)"
            if self.fewest == self.most
            else f"{self.candidates} ({differ})",
            **({"repairs among them": f"{self.repairs}, not counted as one sample"} if self.repairs else {}),
            **({f"drawn from {name}": n for name, n in self.drawn_from.items()} if len(self.drawn_from) > 1 else {}),
            "references (never chosen)": self.references,
            **({"of another source (never chosen)": self.other_sources} if self.other_sources else {}),
            "left out, not judged": self.left_out,
            **{f"narrowed by {name}": _problems(count) for name, count in self.narrowed_by.items()},
            "ties broken by order": _problems(self.ties),
            **{f"problems without {_SAYS[name]}": count for name, count in self.silent.items() if count},
        }
        if self.best_of_n is None:
            shown["select@n"] = "not measured: candidates without verdicts; give `--evaluation E.json` to judge them"
        else:
            shown |= self.best_of_n.table()
            if "public_tests" in self.silent:
                part = ": to pass them is a part of passing all" if self.public_tests < self.tests else ""
                shown["seen by the choice"] = f"{self.public_tests} of {self.tests} tests are public{part}"
                if self.all_public:
                    shown["nothing hidden"] = _nothing_hidden(self.all_public, self.problems, self.narrowed_by)
        return shown | {"output": self.output} | ({"evaluation": self.evaluation} if self.evaluation else {})


def _problems(count: int) -> str:
    return f"{count} problem{'' if count == 1 else 's'}"


def _nothing_hidden(count: int, problems: int, by: Iterable[str]) -> str:
    """What a choice by public tests means where these are all tests."""
    if next(iter(by)) == "public_tests":
        what = "select@n is pass@n by construction"
    else:
        what = "the choice sees all that it is measured by"
    if count == problems:
        return f"of {_problems(problems)} every test is public: {what}"
    return f"of {_problems(problems)}, {count} with every test public: for those {what}"


def run_select(arguments: SelectArguments, config: SelectConfig, judging: JudgeConfig | None = None) -> SelectSummary:
    """Chooses one candidate per problem; an interrupted run goes on where it stopped.

    The output has the group's columns with the chosen candidate alone, and the column `selection`, which says why, see
    [`Choice.chosen`][trl_rrtf.evaluation.choice.Choice.chosen].

    Args:
        arguments: Inputs and outputs.
        config: The signals.
        judging: Limits of the judge, for `public_tests`, `agreement` and an evaluation; by default `JudgeConfig()`.

    Returns:
        What narrowed the choice how often, and `select@n` beside one sample, where every candidate has a verdict.

    Raises:
        LoadError: The rows or a model are not there.
        RowError: A row breaks the format, has no candidate to choose from, or lacks a log-probability that is needed.
        ConfigError: An option contradicts another or would do nothing, an output is an input, or a signal says nothing of any
            problem.
        OutputError: An output cannot be written, or another one stands in the way.
        JudgeError: Too many candidates, or all of a problem, could not be judged.
    """
    judging = judging or JudgeConfig()
    stage = _SelectStage(arguments, config, judging)
    summary = stage.run()
    if arguments.evaluation:
        stage.write_evaluation(summary)
        summary.evaluation = arguments.evaluation
    return summary


class _SelectStage(RowStage[SelectSummary]):
    name = "select"
    summary_type = SelectSummary

    def __init__(self, arguments: SelectArguments, config: SelectConfig, judging: JudgeConfig) -> None:
        super().__init__(arguments, config, judging)
        self._arguments, self._config, self._judging = arguments, config, judging
        self._all_judged = True
        self._drawn_from: Counter[tuple[str, str]] = Counter()  # source, model
        self._runs_programs = bool({"public_tests", "agreement"} & set(config.by))

    # --- Checks ----------------------------------------------------------------------------------------------------------

    def check(self) -> int:
        config = self._config
        if config.model is not None:
            require_model(config.model)
        if config.reward_model is not None:
            require_model(config.reward_model, "reward_model")
        num_groups = check_rows(self._arguments.input, CandidateGroup)
        self._check_groups()
        self._check_judging()
        if config.reward_model is not None:
            check_reward_model(config)
        if self._arguments.evaluation:
            self._check_evaluation_file(Path(self._arguments.evaluation))
        return num_groups

    def _check_groups(self) -> None:
        """Looks at every group for what the signals need, and whether any signal has something to say."""
        by, heard, num_groups, all_public = self._config.by, Counter[str](), 0, 0
        for where, row in iterate_rows(self._arguments.input):
            if not is_own_column(row.get(COLUMN)):
                raise RowError(where, COLUMN, "it is a column of yours, and `select` writes one of that name; rename yours")
            group = CandidateGroup.from_row(row, where)
            contest = Contest.of(group, self._check_candidates(group, where), self._config.public_tests)
            if "public_tests" in by and contest.problem.tests:
                check_tests([(where, contest.problem)])
                heard["public_tests"] += 1
                all_public += len(contest.problem.tests) == len(group.tests)
            if "agreement" in by and not heard["agreement"]:  # one is enough to know
                heard["agreement"] += bool(inputs_of(contest.problem, self._config).texts)
            num_groups += 1
        if "public_tests" in by and not heard["public_tests"]:
            raise ConfigError(
                "`by`: no problem has public tests; say how many of its tests are public (`--public_tests 1`, or a column "
                "`public_tests`), or leave the signal out"
            )
        if "agreement" in by and not heard["agreement"]:
            raise ConfigError(
                "`by`: `agreement` finds nothing to make inputs from, in no problem: neither public tests nor examples or "
                "types in a prompt; give `--public_tests 1`, or leave the signal out"
            )
        if all_public:
            _logger.warning("%s (a test of kind `check` is one test)", _nothing_hidden(all_public, num_groups, by))
        if len(self._drawn_from) > 1:
            _logger.warning(
                "`input`: the choice is among the candidates of %s together, and one sample is their mean%s",
                ", ".join(self._counts_of_sources()),
                "; `--source student` (or `teacher`) chooses from one source"
                if len({source for source, _ in self._drawn_from}) > 1
                else "",
            )

    def _check_candidates(self, group: CandidateGroup, where: str) -> list[int]:
        """Which candidates can be chosen, and whether they have what is needed."""
        config = self._config
        if not any(is_from(candidate, config.source) for candidate in group.candidates):
            of_source = f" of source {config.source}" if config.source else ""
            raise RowError(
                where, "completions", f"there is no candidate{of_source} to choose from; references are never chosen"
            )
        positions = choosable(group, config.source)
        if not positions:
            raise JudgeError(f"{where}: no candidate of problem {group.problem_id} could be judged; judge them again")
        self._drawn_from.update((group.candidates[i].source, group.candidates[i].model) for i in positions)
        self._all_judged &= all(group.candidates[i].verdict is not None for i in positions)
        if "log_probability" in config.by and config.model is None:
            _require_log_probs(where, group, positions)
        return positions

    def _counts_of_sources(self) -> dict[str, int]:
        return {f"{source} {model}": count for (source, model), count in self._drawn_from.items()}

    def _check_judging(self) -> None:
        judges = bool(self._arguments.evaluation) and not self._all_judged
        if judges:
            groups = ((where, CandidateGroup.from_row(row, where)) for where, row in iterate_rows(self._arguments.input))
            check_tests(groups)
        defaults, counts_tests = JudgeConfig(), judges or "public_tests" in self._config.by
        for field in dataclasses.fields(self._judging):
            used = counts_tests or (self._runs_programs and field.name not in _OF_TESTS_ALONE)
            if not used and getattr(self._judging, field.name) != getattr(defaults, field.name):
                needs = "`public_tests`" if self._runs_programs else "`public_tests` or `agreement`"
                raise ConfigError(
                    f"`{field.name}`: nothing here needs it: it is for {needs} in `by`, or an `evaluation` of candidates "
                    "without verdicts; leave it out"
                )

    def _check_evaluation_file(self, path: Path) -> None:
        """Refuses to write over what is no evaluation of the same choice."""
        if not path.exists():
            return
        try:
            earlier = Evaluation.load(path, "evaluation")
        except OSError:
            earlier = None
        if earlier is None or not earlier.best_of_n:
            raise OutputError(
                f"`evaluation`: `{path}` is there already and is no evaluation of `trl-rrtf select`; choose another name, or "
                "remove it yourself"
            )
        if not self._arguments.overwrite:
            wanted = json.loads(json.dumps(self._evaluation_settings()))
            require_same_settings(path, {name: earlier.settings.get(name) for name in wanted}, wanted)

    # --- The skeleton ----------------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        given = "given, so that the candidates are judged" if self._arguments.evaluation else "not given"
        return {
            **self._evaluation_settings(),
            **({} if self._all_judged else {"evaluation": given}),  # else it decides nothing here
            **settings_of(self._judging),  # the defaults, where nothing needs them
        }

    def _evaluation_settings(self) -> dict[str, Any]:
        """What decides the choice."""
        config = self._config
        models = {"model": config.model, "reward_model": config.reward_model}
        return {
            "input": fingerprint(self._arguments.input),
            "select": {
                **settings_of(config),
                **{name: model and model_name(model) for name, model in models.items()},
                **{f"{name}_fingerprint": model and model_fingerprint(model) for name, model in models.items()},
            },
        }

    def throw_away(self) -> None:
        _remove(self._judged_file)
        _remove(self._scored_file)

    def clean_up(self) -> None:
        _remove(self._scored_file)

    @property
    def _judged_file(self) -> Path:
        """All candidates with verdicts, where this stage had them judged; it stays."""
        return Path(f"{self._arguments.output}.judged.jsonl")

    @property
    def _scored_file(self) -> Path:
        """All candidates with their log-probabilities, where a model is asked for them."""
        return Path(f"{self._arguments.output}.log_probs.jsonl")

    def rows(self, done: int) -> Iterator[CandidateGroup]:
        source = self._arguments.input
        if self._arguments.evaluation and not self._all_judged:
            run_judge(JudgeArguments(source, str(self._judged_file)), self._judging)
            source = str(self._judged_file)
        groups = islice(zip(stream_rows(source, CandidateGroup), self._with_log_probs(source), strict=True), done, None)
        self.progress.update(done)
        with ExitStack() as stack:
            signals: dict[str, Signal] | None = None
            while chunk := list(islice(groups, _GROUPS_AT_ONCE)):
                signals = signals or self._signals(stack)
                for group in self._chosen(chunk, signals):
                    yield group
                    self.progress.update()

    def _with_log_probs(self, source: str) -> Iterator[CandidateGroup]:
        """The groups as the signals see them: with the log-probabilities of the model that is asked, if one is."""
        config = self._config
        if config.model is None:
            return stream_rows(source, CandidateGroup)
        reader = TeacherLogProbsConfig(config.model, config.prompt_style, config.dtype, config.batch_size)
        run_teacher_log_probs(TeacherLogProbsArguments(source, str(self._scored_file)), reader)
        return stream_rows(self._scored_file, CandidateGroup)

    def _signals(self, stack: ExitStack) -> dict[str, Signal]:
        """The signals, with their judge and models."""
        judge = stack.enter_context(Judge(self._judging)) if self._runs_programs else None
        signals: dict[str, Signal] = {}
        for name in self._config.by:
            if name == "public_tests":
                assert judge is not None
                signals[name] = PublicTests(judge)
            elif name == "agreement":
                assert judge is not None
                signals[name] = Agreement(judge, self._config)
            elif name == "log_probability":
                signals[name] = LogProbability()
            else:
                signals[name] = RewardModel(self._config)
        return signals

    def _chosen(
        self, pairs: Sequence[tuple[CandidateGroup, CandidateGroup]], signals: dict[str, Signal]
    ) -> Iterator[CandidateGroup]:
        """Chooses in some groups, each given as it is and as the signals see it."""
        choices = [Choice(group, seen, self._config.public_tests, self._config.source) for group, seen in pairs]
        for name, signal in signals.items():
            still_open = [choice for choice in choices if choice.is_open]
            opinions = dict(zip(still_open, signal.opinions([choice.contest() for choice in still_open]), strict=True))
            for choice in choices:
                if choice in opinions:
                    choice.narrow(name, opinions[choice])
                else:
                    choice.skip(name)
        for choice in choices:
            yield choice.chosen()

    # --- What was done ---------------------------------------------------------------------------------------------------

    def summary(self, rows_file: Path) -> SelectSummary:
        narrowed, silent, counts = Counter[str](), Counter[str](), Counter[str]()
        sizes: list[int] = []
        for group in stream_rows(rows_file, CandidateGroup):
            selection = group.extra[COLUMN]
            sizes.append(selection["of"])
            narrowed.update(selection["narrowed_by"])
            counts["ties"] += selection["tied"] > 1
            counts["left_out"] += selection["left_out"]
            counts["repairs"] += selection["of"] - selection["drafts"]
            counts["references"] += selection["references"]
            counts["other_sources"] += selection["other_sources"]
            num_public = len(public_tests(group, self._config.public_tests))
            counts["tests"] += len(group.tests)
            counts["public_tests"] += num_public
            counts["all_public"] += 0 < num_public == len(group.tests)
            for name, values in selection["signals"].items():
                silent[name] += values is not None and all(value is None for value in values)
        return SelectSummary(
            problems=len(sizes),
            candidates=sum(sizes),
            repairs=counts["repairs"],
            fewest=min(sizes),
            most=max(sizes),
            drawn_from=self._counts_of_sources(),
            references=counts["references"],
            other_sources=counts["other_sources"],
            left_out=counts["left_out"],
            narrowed_by={name: narrowed[name] for name in self._config.by},
            ties=counts["ties"],
            silent={name: silent[name] for name in self._config.by},
            public_tests=counts["public_tests"],
            tests=counts["tests"],
            all_public=counts["all_public"],
            best_of_n=BestOfN.of(tallies(rows_file)) if self._all_judged or self._arguments.evaluation else None,
            output=self._arguments.output,
        )

    def write_evaluation(self, summary: SelectSummary) -> None:
        """Writes the choice as the result of an evaluation; one program a problem, so its pass@1 is `select@n`."""
        assert summary.best_of_n is not None
        best = summary.best_of_n
        outcomes, models = Counter[Outcome](), dict.fromkeys(model for _, model in self._drawn_from)
        for group in stream_rows(self._arguments.output, CandidateGroup):
            [candidate] = group.candidates
            if candidate.verdict is not None:
                outcomes[candidate.verdict.outcome] += 1
        judged_here = self._judged_file.exists()
        evaluation = Evaluation(
            pass_at_k={1: best.select},
            problems=[
                ProblemResult(tally.problem_id, Count(1, int(tally.chosen_passes))) for tally in tallies(self._arguments.output)
            ],
            settings={
                "problems": self._arguments.input,
                "model": f"{', '.join(models)}, select@{best.n} by {', '.join(self._config.by)}",
                **({"num_generations": best.largest} if best.smallest == best.largest else {}),
                **self._evaluation_settings(),
            },
            judge=dataclasses.asdict(self._judging) if judged_here else {},
            outcomes={outcome.label: outcomes[outcome] for outcome in reversed(Outcome)},
            versions=library_versions(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            best_of_n={**best.to_json(), "problems_with_every_test_public": summary.all_public},
        )
        assert self._arguments.evaluation is not None
        write_json(self._arguments.evaluation, evaluation.to_json())


_OF_TESTS_ALONE = ("stop_at_first_failure",)
"""Settings of the judge that mean nothing where programs run on inputs, without tests."""


def _remove(path: Path) -> None:
    """Removes a stage's output, and what it keeps beside it."""
    for ending in ("", *SIDE_FILES):
        Path(f"{path}{ending}").unlink(missing_ok=True)


def _require_log_probs(where: str, group: CandidateGroup, positions: Sequence[int]) -> None:
    for i in positions:
        if group.candidates[i].teacher_log_prob is None and group.candidates[i].program:
            raise RowError(
                where,
                f"teacher_log_probs[{i}]",
                "it is missing, and `log_probability` in `by` needs it; name a model (`--model`), or run `trl-rrtf "
                "teacher-logprobs` first",
            )
