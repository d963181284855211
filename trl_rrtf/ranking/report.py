"""What ranked groups hold, in numbers: the data card and its plots, from one pass over the rows."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import OUTCOMES, TEACHER_SOURCES, RankedGroup
from trl_rrtf.row_files import stream_rows

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard

FATES_SUFFIX = ".report.json"
"""Ending of the file beside the groups with what was kept, what was dropped and why, and how it was judged."""

PLOTS = ("outcomes", "pass_rates", "lengths", "score_gaps")
"""Names of the plots, each `NAME.png`."""

_LENGTH_BIN = 50


@dataclass
class GroupStatistics:
    """Counts that stay small, however many rows there are.

    Attributes:
        groups: Number of groups.
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
    def of(cls, source: str) -> Self:
        """Counts the groups of a file or Hub data set."""
        statistics = cls()
        for group in stream_rows(source, RankedGroup):
            statistics.add(group)
        return statistics

    def add(self, group: RankedGroup) -> None:
        """Counts one group."""
        sources = group.sources or ["not told"] * len(group.scores)
        outcomes = group.extra.get("outcomes") or ["not told"] * len(group.scores)
        self.groups += 1
        self.sizes[len(group.scores)] += 1
        self.sources.update(sources)
        self.models.update(group.extra.get("models") or [])
        self.licenses.update([group.extra["license"]] if group.extra.get("license") else [])
        self.score_gaps[round(max(group.scores) - min(group.scores), 3)] += 1
        for source, outcome, completion in zip(sources, outcomes, group.completions, strict=True):
            self.by_source[source][outcome] += 1
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            self.lengths[outcome][len(text) // _LENGTH_BIN * _LENGTH_BIN] += 1
        students = [outcome for source, outcome in zip(sources, outcomes, strict=True) if source == "student"]
        if students:
            self.pass_rates[round(students.count("passed") / len(students), 3)] += 1
        pairs = _ordered_pairs(group.scores, sources)
        self.teacher_student_pairs += pairs
        self.groups_without_pair += not pairs


def _ordered_pairs(scores: list[float], sources: list[str]) -> int:
    """Number of (teacher, student) pairs with the teacher's score higher."""
    entries = list(zip(scores, sources, strict=True))
    teachers = [value for value, source in entries if source in TEACHER_SOURCES]
    students = [value for value, source in entries if source not in TEACHER_SOURCES]
    return sum(teacher > student for teacher in teachers for student in students)


def write_report(source: str, folder: str | Path, *, name: str, license: str | None = None) -> None:
    """Writes the data card (`README.md`) and its plots.

    Args:
        source: Ranked groups. What `trl-rrtf rank` leaves beside them goes into the card.
        folder: Where the files go.
        name: Title of the card.
        license: Licence of the data, as the Hub names it.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    statistics = GroupStatistics.of(source)
    draw_plots(statistics, folder)
    card = data_card(statistics, name=name, license=license, source=source, plots=True)
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def data_card(statistics: GroupStatistics, *, name: str, license: str | None, source: str, plots: bool) -> DatasetCard:
    """The data card: what a row is, how many there are, how they were made.

    Args:
        statistics: The counts.
        name: Title, or id of the data set.
        license: Licence of the data, as the Hub names it.
        source: The file, beside which its settings and the fates of groups stand.
        plots: Whether the plots stand beside the card.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    settings, fates = _beside(source, ".settings.json"), _beside(source, FATES_SUFFIX)
    columns = [outcome for outcome in OUTCOMES if statistics.outcomes[outcome]]
    data = DatasetCardData(
        license=license,
        pretty_name=name.split("/")[-1],
        task_categories=["text-generation"],
        tags=["trl", "rrtf", "preference", "code"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )
    card: DatasetCard = DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("data_card.md")),
        name=name,
        num_groups=statistics.groups,
        num_candidates=sum(statistics.sources.values()),
        smallest=min(statistics.sizes),
        largest=max(statistics.sizes),
        with_signal=statistics.groups_with_signal,
        pairs=statistics.teacher_student_pairs,
        sources=dict(statistics.sources.most_common()),
        models=dict(statistics.models.most_common()),
        licenses=dict(statistics.licenses.most_common()),
        columns=columns,
        by_source={key: [counts[column] for column in columns] for key, counts in sorted(statistics.by_source.items())},
        fates=fates.get("fates", {}),
        judge=fates.get("judge", {}),
        settings={key: value for key, value in sorted(settings.items()) if key not in ("stage", "input")},
        plots=PLOTS if plots else (),
    )
    return card


def _beside(source: str, suffix: str) -> dict[str, Any]:
    path = Path(f"{source}{suffix}")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return values


def draw_plots(statistics: GroupStatistics, folder: Path) -> list[Path]:
    """Draws outcomes by source, pass rates, lengths and score gaps.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("`report`: the plots need matplotlib; install `trl-rrtf[plots]`") from error
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
        for color, outcome in enumerate((*OUTCOMES, "not told")):
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
