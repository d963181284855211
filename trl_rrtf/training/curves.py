"""A picture of a training's curves, from its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PANELS = {
    "loss": ("loss", "loss/rank", "loss/sft"),
    "ranking accuracy": ("ranking/accuracy", "rewards/accuracies"),
    "ranking margin, length-normalised": ("ranking/margin",),
    "log-probability, length-normalised": ("logps/best", "logps/worst"),
    "completion length, tokens": ("completions/mean_length",),
    "learning rate": ("learning_rate",),
}
"""Title -> logged metrics; the evaluation's are drawn beside them, dashed."""


def plot_training_curves(log_history: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the curves as a picture; best and worst log-probability stand apart, since a margin hides that both fall.

    Args:
        log_history: `trainer.state.log_history`.
        path: `.png`, `.svg` or `.pdf`.

    Raises:
        ImportError: matplotlib is not installed (`pip install 'trl-rrtf[plots]'`).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6))
    FigureCanvasAgg(figure)
    for panel, (title, metrics) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for number, metric in enumerate(metrics):
            for prefix, style in (("", "-"), ("eval_", "--")):
                points = [(entry["step"], entry[prefix + metric]) for entry in log_history if prefix + metric in entry]
                if points:
                    steps, values = zip(*points, strict=True)
                    panel.plot(steps, values, style, color=f"C{number}", marker=".", label=prefix + metric)
        panel.set_title(title)
        panel.set_xlabel("update")
        if panel.lines:
            panel.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
