"""The `select` stage: one program per problem out of its n candidates, and what the choice is worth."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self

from trl_rrtf.errors import ConfigError, JudgeError, OutputError, RowError
from trl_rrtf.evaluation.best_of_n import BestOfN
from trl_rrtf.evaluation.choice import COLUMN, Choice, choosable, tallies
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
        references: Reference solutions, which are never chosen nor counted.
        left_out: Candidates that the judge could not judge.
        narrowed_by: Signal -> problems where it ruled out some program that the earlier signals had left.
        ties: Problems in which different programs were equal in all signals, so that the first one drawn was chosen.
        silent: Signal -> problems of which it was asked, and says nothing.
        public_tests: Public tests of all problems, which `public_tests` sees.
        tests: Tests of all problems.
        best_of_n: What the choice is worth; None where candidates have no verdicts.
        output: The groups of one chosen candidate.
        evaluation: File of the evaluation, or None.
    """

    problems: int
    candidates: int
    repairs: int
    fewest: int
    most: int
    references: int
    left_out: int
    narrowed_by: dict[str, int]
    ties: int
    silent: dict[str, int]
    public_tests: int
    tests: int
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
            "references (never chosen)": self.references,
            "left out, not judged": self.left_out,
            **{f"narrowed by {name}": f"{count} problems" for name, count in self.narrowed_by.items()},
            "ties broken by order": f"{self.ties} problems",
            **{f"problems without {_SAYS[name]}": count for name, count in self.silent.items() if count},
        }
        if self.best_of_n is None:
            shown["select@n"] = "not measured: candidates without verdicts; give `--evaluation E.json` to judge them"
        else:
            shown |= self.best_of_n.table()
            if "public_tests" in self.silent:
                shown["seen by the choice"] = (
                    f"{self.public_tests} of {self.tests} tests are public: to pass them is a part of passing all"
                )
        return shown | {"output": self.output} | ({"evaluation": self.evaluation} if self.evaluation else {})


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
        config, heard = self._config, Counter[str]()
        for where, row in iterate_rows(self._arguments.input):
            group = CandidateGroup.from_row(row, where)
            positions = choosable(group)
            if not any(candidate.source != "reference" for candidate in group.candidates):
                raise RowError(where, "completions", "there is no candidate to choose from; references are never chosen")
            if not positions:
                raise JudgeError(f"{where}: no candidate of problem {group.problem_id} could be judged; judge them again")
            self._all_judged &= all(group.candidates[i].verdict is not None for i in positions)
            contest = Contest.of(group, positions, config.public_tests)
            if "public_tests" in config.by and contest.problem.tests:
                check_tests([(where, contest.problem)])
                heard["public_tests"] += 1
            if "agreement" in config.by and not heard["agreement"]:  # one is enough to know
                heard["agreement"] += bool(inputs_of(contest.problem, config).texts)
            if "log_probability" in config.by and config.model is None:
                _require_log_probs(where, group, positions)
        if "public_tests" in config.by and not heard["public_tests"]:
            raise ConfigError(
                "`by`: no problem has public tests; say how many of its tests are public (`--public_tests 1`, or a column "
                "`public_tests`), or leave the signal out"
            )
        if "agreement" in config.by and not heard["agreement"]:
            raise ConfigError(
                "`by`: `agreement` finds nothing to make inputs from, in no problem: neither public tests nor examples or "
                "types in a prompt; give `--public_tests 1`, or leave the signal out"
            )

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
        judges = bool(self._arguments.evaluation) and not self._all_judged
        return {
            **self._evaluation_settings(),
            "judged_here": judges,
            **(settings_of(self._judging) if judges or self._runs_programs else {}),
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
        choices = [Choice(group, seen, self._config.public_tests) for group, seen in pairs]
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
            counts["tests"] += len(group.tests)
            counts["public_tests"] += len(public_tests(group, self._config.public_tests))
            for name, values in selection["signals"].items():
                silent[name] += values is not None and all(value is None for value in values)
        return SelectSummary(
            problems=len(sizes),
            candidates=sum(sizes),
            repairs=counts["repairs"],
            fewest=min(sizes),
            most=max(sizes),
            references=counts["references"],
            left_out=counts["left_out"],
            narrowed_by={name: narrowed[name] for name in self._config.by},
            ties=counts["ties"],
            silent={name: silent[name] for name in self._config.by},
            public_tests=counts["public_tests"],
            tests=counts["tests"],
            best_of_n=BestOfN.of(tallies(rows_file)) if self._all_judged or self._arguments.evaluation else None,
            output=self._arguments.output,
        )

    def write_evaluation(self, summary: SelectSummary) -> None:
        """Writes the choice as the result of an evaluation; one program a problem, so its pass@1 is `select@n`."""
        assert summary.best_of_n is not None
        best = summary.best_of_n
        outcomes, models = Counter[Outcome](), dict[str, None]()
        for group in stream_rows(self._arguments.output, CandidateGroup):
            [candidate] = group.candidates
            models[candidate.model] = None
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
            best_of_n=best.to_json(),
        )
        assert self._arguments.evaluation is not None
        write_json(self._arguments.evaluation, evaluation.to_json())


_OF_TESTS_ALONE = ("number_tolerance", "stop_at_first_failure")
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
