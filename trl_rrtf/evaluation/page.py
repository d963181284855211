"""The page of an evaluation: its numbers, plots, and each candidate beside its verdict. One file, which needs no network."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.evaluation.result import Evaluation, ProblemResult
from trl_rrtf.rows.files import stream_rows, write_text
from trl_rrtf.rows.records import OUTCOMES, Candidate, JudgedGroup, Outcome

_COLORS = {
    "passed": "#2e7d32",
    "partial": "#9ccc65",
    "failed": "#ffb300",
    "runtime_error": "#ef6c00",
    "compile_error": "#b71c1c",
}


def require_plots() -> None:
    """Asks for matplotlib before any work.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("`page`: the plots need matplotlib; install `trl-rrtf[plots]`") from error


def write_page(evaluation: Evaluation, judged: Sequence[Path], output: str) -> None:
    """Writes the page.

    Args:
        evaluation: What `trl-rrtf evaluate` measured.
        judged: The judged groups, of one file or one per temperature.
        output: The page.

    Raises:
        OutputError: It cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)  # programs are anybody's text
    page = environment.get_template("page.html").render(
        evaluation=evaluation,
        model=evaluation.settings["model"],
        plots={
            "Outcomes of the candidates": _outcomes_plot(evaluation.outcomes),
            "Problems by the share of their candidates that pass": _pass_rates_plot(evaluation.problems),
        },
        problems=list(_problems(list(dict.fromkeys(judged)))),
        colors=_COLORS,
    )
    write_text(output, page)


def _problems(judged: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Each problem with its different candidates, the best first, and how often each was drawn."""
    for groups in zip(*(stream_rows(path, JudgedGroup) for path in judged), strict=True):
        problem, candidates = groups[0], [candidate for group in groups for candidate in group.candidates]
        times = Counter(candidate.program for candidate in candidates)
        drawn = [candidate.verdict.outcome for candidate in candidates if candidate.verdict and candidate.source != "reference"]
        distinct = {candidate.program: candidate for candidate in candidates if candidate.verdict}
        prompt = problem.prompt
        yield {
            "id": problem.problem_id,
            "prompt": prompt if isinstance(prompt, str) else "\n\n".join(str(message["content"]) for message in prompt),
            "passed": drawn.count(Outcome.PASSED),
            "drawn": len(drawn),
            "candidates": [
                {
                    "program": candidate.program,
                    "outcome": candidate.verdict.outcome.label,
                    "verdict": candidate.verdict,
                    "times": times[candidate.program],
                    "is_reference": candidate.source == "reference",
                }
                for candidate in sorted(distinct.values(), key=_outcome, reverse=True)
                if candidate.verdict
            ],
        }


def _outcome(candidate: Candidate) -> Outcome:
    return candidate.verdict.outcome if candidate.verdict else Outcome.INFRASTRUCTURE


def _outcomes_plot(outcomes: dict[str, int]) -> str:
    figure, axes = _figure()
    names = [name for name in OUTCOMES if outcomes.get(name)]
    bars = axes.barh(names, [outcomes[name] for name in names], color=[_COLORS.get(name, "#757575") for name in names])
    axes.bar_label(bars, padding=2)
    axes.margins(x=0.12)  # room for the labels
    axes.set_xlabel("candidates")
    return _as_image(figure)


def _pass_rates_plot(problems: list[ProblemResult]) -> str:
    figure, axes = _figure()
    axes.hist([problem.count.c / problem.count.n for problem in problems], bins=11, range=(0, 1), color="#3f51b5")
    axes.set_xlabel("share of candidates that pass")
    axes.set_ylabel("problems")
    return _as_image(figure)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    return figure, figure.subplots()


def _as_image(figure: Any) -> str:
    """The picture as text, to stand in the page itself."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
