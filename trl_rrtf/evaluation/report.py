"""The page of an evaluation: its numbers, plots, and each candidate beside its verdict. One file, which needs no network."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import OUTCOMES, JudgedGroup
from trl_rrtf.row_files import stream_rows

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
        raise ConfigError("`report`: the plots need matplotlib; install `trl-rrtf[plots]`") from error


def write_report(result: dict[str, Any], judged: Sequence[Path], output: str) -> None:
    """Writes the page.

    Args:
        result: What `trl-rrtf evaluate` measured.
        judged: The judged groups, of one file or one per temperature.
        output: The page.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)  # programs are anybody's text
    page = environment.get_template("report.html").render(
        result=result,
        model=result["settings"]["model"],
        plots={
            "Outcomes of the candidates": _outcomes_plot(result["outcomes"]),
            "Problems by the share of their candidates that pass": _pass_rates_plot(result["problems"]),
        },
        problems=list(_problems(judged)),
        colors=_COLORS,
    )
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(page, encoding="utf-8")


def _problems(judged: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Each problem with its different candidates, the best first, and how often each was drawn."""
    for groups in zip(*(stream_rows(path, JudgedGroup) for path in judged), strict=True):
        group = groups[0]
        entries = list(chain.from_iterable(zip(g.completions, g.verdicts, g.sources, strict=True) for g in groups))
        times = Counter(program for program, _, _ in entries)
        verdicts = {program: verdict for program, verdict, _ in entries}
        references = {program for program, _, source in entries if source == "reference"}
        drawn = [verdict.outcome.label for _, verdict, source in entries if source != "reference"]
        prompt = group.prompt if isinstance(group.prompt, str) else "\n\n".join(str(m["content"]) for m in group.prompt)
        ordered = sorted(verdicts, key=lambda program: verdicts[program].outcome, reverse=True)
        yield {
            "id": group.problem_id,
            "prompt": prompt,
            "passed": drawn.count("passed"),
            "drawn": len(drawn),
            "candidates": [
                {
                    "program": program,
                    "outcome": verdicts[program].outcome.label,
                    "verdict": verdicts[program],
                    "times": times[program],
                    "is_reference": program in references,
                }
                for program in ordered
            ],
        }


def _outcomes_plot(outcomes: dict[str, int]) -> str:
    figure, axes = _figure()
    names = [name for name in OUTCOMES if outcomes.get(name)]
    bars = axes.barh(names, [outcomes[name] for name in names], color=[_COLORS.get(name, "#757575") for name in names])
    axes.bar_label(bars, padding=2)
    axes.margins(x=0.12)  # room for the labels
    axes.set_xlabel("candidates")
    return _as_image(figure)


def _pass_rates_plot(problems: list[dict[str, Any]]) -> str:
    figure, axes = _figure()
    axes.hist([entry["c"] / entry["n"] for entry in problems], bins=11, range=(0, 1), color="#3f51b5")
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
