"""The tables at the end of a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from trl_rrtf.pipeline.results import PipelineResults

_RANKING_METRICS = {
    "ranking accuracy, held-out groups": "eval_ranking/accuracy",
    "ranking margin (nats per token)": "eval_ranking/margin",
    "mean log-probability of the best": "eval_logps/best",
    "mean log-probability of the worst": "eval_logps/worst",
}


def print_results(results: PipelineResults, folder: Path) -> None:
    """Prints before and after, the rounds, the seconds, and where everything lies."""
    console = Console()
    console.print(_before_and_after(results))
    if len(results.rounds) > 1:
        console.print(_by_round(results))
    console.print(_seconds(results))
    model = Path(results.best.model)
    for label, path in {
        "trained model, tokenizer, card": model,
        "candidates": model.with_name("candidates"),
        "verdicts": model.with_name("judged.jsonl"),
        "ranked groups": model.with_name("ranked"),
        "evaluations": folder / "evaluation",
        "this table as JSON": folder / "results.json",
    }.items():
        console.print(f"{label}: {path}")


def _before_and_after(results: PipelineResults) -> Table:
    caption = None
    if results.chosen_on is not None:
        caption = (
            f"* the best of {len(results.rounds)} rounds was chosen on {results.chosen_on}, so this figure is biased upwards"
        )
    table = Table(title="RRTF: before and after training", caption=caption)
    table.add_column("measure")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for benchmark, by_k in results.before.items():
        mark = " *" if benchmark == results.chosen_on else ""
        for k, interval in by_k.items():
            table.add_row(f"pass@{k}, {benchmark}{mark}", str(interval), str(results.after[benchmark][k]))
    for label, metric in _RANKING_METRICS.items():
        if metric in results.heldout_before and metric in results.heldout_after:
            table.add_row(label, f"{results.heldout_before[metric]:.3f}", f"{results.heldout_after[metric]:.3f}")
    return table


def _by_round(results: PipelineResults) -> Table:
    table = Table(title="pass@k by round")
    for name in ("round", *results.before):
        table.add_column(name)
    for number, entry in enumerate(results.rounds, start=1):
        shown = [", ".join(f"pass@{k} {interval}" for k, interval in by_k.items()) for by_k in entry.pass_at_k.values()]
        table.add_row(f"{number}{' (best)' if entry is results.best else ''}", *shown)
    return table


def _seconds(results: PipelineResults) -> Table:
    table = Table(title="Seconds per step")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for name, seconds in results.seconds.items():
        table.add_row(name, f"{seconds:.0f}")
    table.add_row("all", f"{sum(results.seconds.values()):.0f}")
    return table
