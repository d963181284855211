"""What ranked groups hold, in numbers: the data card and its plots, from one pass over the rows."""

from __future__ import annotations

import importlib.util
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.hub import told_name
from trl_rrtf.rows.files import output_errors, read_json, stream_rows, write_text
from trl_rrtf.rows.records import OUTCOMES, RankedCandidate, RankedGroup
from trl_rrtf.rows.stage import SUMMARY_SUFFIX

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard

PLOTS = ("outcomes", "pass_rates", "lengths", "score_gaps")
"""Names of the plots, each `NAME.png`."""

_TAG = "ranked-groups"
"""A tag of every data card that is written here, by which a later run knows it as one that it may replace."""

_NOT_TOLD = "not told"
"""Source or outcome of a candidate whose row does not say it."""

_LENGTH_BIN = 50

_COLUMNS = {
    "prompt": "text or messages",
    "completions": "the candidates, as the prompt is: text or messages",
    "scores": "one for each candidate, larger is better",
    "sources": "who wrote each candidate: a student, a teacher, or the data set's reference",
    "models": "the model that each candidate came from, or null",
    "outcomes": "what happened when each candidate met its tests, or null",
    "repair_of": "of a candidate that repairs another one's failure, that one's index in the group; else null",
    "problem_id": "the problem",
    "license": "the problem's licence",
}
"""What the columns hold that this package writes."""


@dataclass
class GroupStatistics:
    """Counts that stay small, however many rows there are.

    Attributes:
        groups: Number of groups.
        columns: Column -> groups that have it.
        repairs: Candidates of students that repair another one.
        sizes: Candidates per group -> groups.
        sources: Source -> candidates.
        by_source: Source -> outcome -> candidates.
        models: Model -> candidates.
        licenses: Licence of the problems -> groups.
        pass_rates: Share of the student's candidates that pass -> groups.
        lengths: Outcome -> length in characters, rounded down to 50 -> candidates.
        score_gaps: Best less worst score -> groups.
        teacher_student_pairs: Pairs with the teacher's score higher.
        groups_without_pair: Groups without such a pair.
    """

    groups: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    repairs: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    models: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    pass_rates: Counter[float] = field(default_factory=Counter)
    lengths: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    score_gaps: Counter[float] = field(default_factory=Counter)
    teacher_student_pairs: int = 0
    groups_without_pair: int = 0

    @property
    def outcomes(self) -> Counter[str]:
        """Outcome -> candidates."""
        return sum(self.by_source.values(), Counter())

    @property
    def groups_with_signal(self) -> int:
        """Groups in which not all scores are equal."""
        return self.groups - self.score_gaps[0.0]

    @classmethod
    def of(cls, input: str | Path) -> Self:
        """Counts the groups of a file or Hub data set."""
        statistics = cls()
        for group in stream_rows(input, RankedGroup):
            statistics.add(group)
        return statistics

    def add(self, group: RankedGroup) -> None:
        """Counts one group."""
        scores = [candidate.score for candidate in group.candidates]
        self.groups += 1
        self.columns.update(group.to_row().keys())
        self.repairs += _repairs(group)
        self.sizes[len(group.candidates)] += 1
        self.models.update(candidate.model for candidate in group.candidates if candidate.model is not None)
        self.licenses.update([str(group.extra["license"])] if group.extra.get("license") else [])
        self.score_gaps[round(max(scores) - min(scores), 3)] += 1
        for candidate in group.candidates:
            source, outcome = candidate.source or _NOT_TOLD, candidate.outcome or _NOT_TOLD
            self.sources[source] += 1
            self.by_source[source][outcome] += 1
            self.lengths[outcome][len(candidate.text) // _LENGTH_BIN * _LENGTH_BIN] += 1
        students = [candidate.outcome for candidate in group.candidates if candidate.source == "student"]
        if students:
            self.pass_rates[round(students.count("passed") / len(students), 3)] += 1
        pairs = _ordered_pairs(group.candidates)
        self.teacher_student_pairs += pairs
        self.groups_without_pair += not pairs


def _repairs(group: RankedGroup) -> int:
    """Number of the students' candidates that repair another one; what other tools call `repair_of` counts for nothing."""
    column = group.extra.get("repair_of")
    if not isinstance(column, list) or len(column) != len(group.candidates):
        return 0
    pairs = zip(group.candidates, column, strict=True)
    return sum(candidate.source == "student" and index is not None for candidate, index in pairs)


def _ordered_pairs(candidates: list[RankedCandidate]) -> int:
    """Number of (teacher, student) pairs with the teacher's score higher."""
    teachers = [candidate.score for candidate in candidates if candidate.is_teachers]
    students = [candidate.score for candidate in candidates if not candidate.is_teachers]
    return sum(teacher > student for teacher in teachers for student in students)


def require_card_folder(folder: str | Path) -> None:
    """Refuses, before any work, a folder that holds somebody else's card or plots, and a machine that cannot draw.

    Raises:
        ConfigError: The file that would be replaced is named.
    """
    folder = Path(folder)
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("`card`: the plots need matplotlib; install `trl-rrtf[plots]`")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"`card`: `{folder}` is a file; give a folder")
    card = folder / "README.md"
    if _is_own_card(card):
        return
    for path in (card, *(folder / f"{name}.png" for name in PLOTS)):
        if path.exists():
            raise ConfigError(
                f"`card`: `{path}` would be replaced, and `trl-rrtf rank` did not write it; choose another folder"
            )


def _is_own_card(path: Path) -> bool:
    from huggingface_hub import DatasetCard

    try:
        return _TAG in (DatasetCard.load(path, ignore_metadata_errors=True).data.tags or [])
    except Exception:  # not there, no text, or its header is no YAML: whatever it is, it was not written here
        return False


def write_card(input: str, folder: str | Path, *, name: str, license: str | None = None) -> None:
    """Writes the data card (`README.md`) and its plots.

    Args:
        input: Ranked groups. What `trl-rrtf rank` leaves beside them goes into the card.
        folder: Where the files go.
        name: Title of the card.
        license: Licence of the data, as the Hub names it.

    Raises:
        ConfigError: matplotlib is not installed, or the folder holds a README.md or plots that this function did not write.
        OutputError: The folder cannot be written.
    """
    folder = Path(folder)
    require_card_folder(folder)
    statistics = GroupStatistics.of(input)
    # The card first: it tells the plots of a run that was killed on the way from somebody else's.
    card = data_card(statistics, name=name, repo_id=None, license=license, input=input, plots=True)
    write_text(folder / "README.md", str(card))
    with output_errors(folder):
        draw_plots(statistics, folder)


def data_card(
    statistics: GroupStatistics, *, name: str, repo_id: str | None, license: str | None, input: str, plots: bool
) -> DatasetCard:
    """The data card: what a row is, how many there are, how they were made.

    Args:
        statistics: The counts.
        name: Title.
        repo_id: The data set on the Hub, or None for rows that lie in a file: how they are loaded differs.
        license: Licence of the data, as the Hub names it.
        input: The file, beside which its settings and the summary of the ranking stand.
        plots: Whether the plots stand beside the card.

    Raises:
        OutputError: What stands beside the file is damaged.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    settings, summary = beside(input, ".settings.json"), beside(input, SUMMARY_SUFFIX)
    groups = {f"dropped: {reason}": count for reason, count in summary.get("dropped", {}).items()}
    columns = [outcome for outcome in OUTCOMES if statistics.outcomes[outcome]]
    data = DatasetCardData(
        license=license,
        pretty_name=name.split("/")[-1],
        task_categories=["text-generation"],
        tags=["trl", "rrtf", "preference", "code", _TAG],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}] if repo_id else None,
    )
    card: DatasetCard = DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("data_card.md")),
        name=name,
        load=_how_to_load(input, repo_id),
        num_groups=statistics.groups,
        num_candidates=sum(statistics.sources.values()),
        smallest=min(statistics.sizes),
        largest=max(statistics.sizes),
        with_signal=statistics.groups_with_signal,
        pairs=statistics.teacher_student_pairs,
        sources=dict(statistics.sources.most_common()),
        repairs=statistics.repairs if "repair_of" in statistics.columns else None,
        known_columns={name: told for name, told in _COLUMNS.items() if name in statistics.columns},
        other_columns=sorted(statistics.columns.keys() - _COLUMNS.keys()),
        models=_by_told_name(statistics.models),
        licenses=dict(statistics.licenses.most_common()),
        columns=columns,
        by_source={key: [counts[column] for column in columns] for key, counts in sorted(statistics.by_source.items())},
        fates={"kept": summary["kept"], **groups} if "kept" in summary else {},
        judge=summary.get("judge", {}),
        settings={key: _told(value) for key, value in sorted(settings.items()) if key not in ("stage", "input")},
        plots=PLOTS if plots else (),
    )
    return card


def _how_to_load(input: str, repo_id: str | None) -> str:
    """The arguments of `load_dataset`."""
    if repo_id:
        return f'"{repo_id}"'
    return f'"{"parquet" if input.endswith(".parquet") else "json"}", data_files="{told_name(input)}"'


def _told(value: Any) -> Any:
    """A setting, as the card tells it: of a path, its name."""
    return told_name(value) if isinstance(value, str) and value.startswith(("/", "~/")) else value


def _by_told_name(models: Counter[str]) -> dict[str, int]:
    """Model -> candidates, the most frequent first; rows that other tools wrote may name a folder of their author's disk."""
    told: Counter[str] = Counter()
    for model, count in models.items():
        told[told_name(model)] += count
    return dict(told.most_common())


def beside(input: str, suffix: str) -> dict[str, Any]:
    """What a stage left beside its rows, or nothing.

    Raises:
        OutputError: It is damaged.
    """
    path = Path(f"{input}{suffix}")
    if not path.exists():
        return {}
    values: Any = read_json(path, "remove it to go on without what it says of the rows")
    return values if isinstance(values, dict) else {}


def draw_plots(statistics: GroupStatistics, folder: Path) -> list[Path]:
    """Draws outcomes by source, pass rates, lengths and score gaps.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("`card`: the plots need matplotlib; install `trl-rrtf[plots]`") from error
    paths = []
    for name, draw in zip(PLOTS, (_draw_outcomes, _draw_pass_rates, _draw_lengths, _draw_score_gaps), strict=True):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        draw(statistics, figure.subplots())
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def _draw_outcomes(statistics: GroupStatistics, axes: Any) -> None:
    for position, (source, counts) in enumerate(sorted(statistics.by_source.items())):
        total, left = sum(counts.values()), 0.0
        for color, outcome in enumerate((*OUTCOMES, _NOT_TOLD)):
            if counts[outcome]:
                share = counts[outcome] / total
                label = outcome if outcome not in axes.get_legend_handles_labels()[1] else None
                axes.barh(position, share, left=left, color=f"C{color}", label=label)
                left += share
        axes.text(0.01, position, f"{source}: {total}", va="center", color="white")
    axes.set(title="Outcomes by source", xlabel="share of the candidates", yticks=[])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, fontsize=8)


def _draw_pass_rates(statistics: GroupStatistics, axes: Any) -> None:
    axes.bar(statistics.pass_rates.keys(), statistics.pass_rates.values(), width=0.04)
    axes.set(title="Pass rate by problem", xlabel="share of the student's candidates that pass", ylabel="problems")


def _draw_lengths(statistics: GroupStatistics, axes: Any) -> None:
    for outcome, counts in sorted(statistics.lengths.items()):
        total = sum(counts.values())
        places = sorted(counts)
        axes.plot(places, [counts[place] / total for place in places], label=f"{outcome} ({total})")
    axes.set(title="Lengths", xlabel="characters", ylabel="share of the candidates")
    axes.legend(fontsize=8)


def _draw_score_gaps(statistics: GroupStatistics, axes: Any) -> None:
    axes.bar(statistics.score_gaps.keys(), statistics.score_gaps.values(), width=0.06)
    axes.set(title="Score gaps", xlabel="best less worst score of a group", ylabel="groups")
