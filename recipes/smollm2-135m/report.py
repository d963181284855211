"""The experiment's tables and plots, from the results of `experiment.py`.

    python recipes/smollm2-135m/report.py recipes/smollm2-135m/results.json --plot curves.png

prints what stands in `recipes/README.md`: a row per method, differences between methods problem by problem, the learning rates
that were tried, and what the groups teach. Seeds of a method are averaged problem by problem; the intervals are bootstrap
intervals over the test problems.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from trl_rrtf.evaluation.pass_at_k import pass_at_k
from trl_rrtf.evaluation.statistics import mean_with_interval, paired_difference

METRICS = {"ranking/accuracy": "accuracy", "logps/best": "log p best", "logps/worst": "log p worst"}
"""Of the held-out groups: name in the trainer -> heading."""


def collect(folder):
    """What is done in an experiment's folder: for each method its runs on the test problems and the learning rates tried."""
    results = {"groups": describe_groups(folder / "data" / "groups.jsonl"), "methods": {}}
    for path in sorted(folder.glob("*/result.json")):
        run = json.loads(path.read_text())
        method = results["methods"].setdefault(run["method"], {"runs": [], "tried": {}})
        if run["learning_rate"] is not None and "validation" in run:
            method["tried"][f"{run['learning_rate']:g}"] = run["validation"]["pass@k"]["pass@1"]["mean"]
        if "test" in run:
            problems = json.loads((path.parent / "test.json").read_text())["problems"]
            kept = ("learning_rate", "seed", "held_out_groups", "train_seconds", "tokens", "updates", "curve")
            method["runs"].append(
                {
                    **{name: run[name] for name in kept if name in run},
                    "mean_characters": run["test"]["mean_characters"],
                    **exported(path.parent),
                    "samples": problems[0]["n"],
                    "passed": [entry["c"] for entry in problems],
                }
            )
    results["methods"] = {name: method for name, method in results["methods"].items() if method["runs"]}
    return results


def exported(folder):
    """Which test problems the model and its int8 export solve, if it was exported."""
    names = {"greedy": "greedy.json", "greedy int8": "greedy-int8.json"}
    if not all((folder / name).exists() for name in names.values()):
        return {}
    return {
        "exported": {
            which: [entry["c"] for entry in json.loads((folder / name).read_text())["problems"]]
            for which, name in names.items()
        }
    }


def describe_groups(path):
    """How many groups and pairs there are, by what became of the worse candidate."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    below = Counter()
    for row in rows:
        best = max(row["scores"])
        worse = [outcome for outcome, score in zip(row["outcomes"], row["scores"], strict=True) if score < best]
        below.update(outcome for outcome in worse if outcome != "passed")
    return {
        "groups": len(rows),
        "candidates": sum(len(row["scores"]) for row in rows),
        "worse than the best, by outcome": dict(below.most_common()),
        "passed, below the teacher by the tie rule": sum(
            outcome == "passed" and source == "student"
            for row in rows
            for outcome, source in zip(row["outcomes"], row["sources"], strict=True)
        ),
    }


def rates(method, k=1):
    """pass@k of each test problem, averaged over the seeds with enough samples for it; empty if there are none."""
    runs = [run for run in method["runs"] if run["samples"] >= k]
    of_seeds = [[pass_at_k(run["samples"], c, k) for c in run["passed"]] for run in runs]
    return [sum(values) / len(values) for values in zip(*of_seeds, strict=True)]


def rate_of_each_seed(method):
    """pass@1 of each seed's model, in percent: how far apart two runs of one method are."""
    runs = sorted(method["runs"], key=lambda run: run["seed"])
    return ", ".join(f"{100 * sum(rates({'runs': [run]})) / len(run['passed']):.1f}" for run in runs)


def mean(method, name):
    """A number of a run, averaged over the seeds; None if it has none."""
    values = [run[name] if name in run else run.get("held_out_groups", {}).get(name) for run in method["runs"]]
    return None if None in values else sum(values) / len(values)


def table(results):
    """A row per method, the best pass@1 first."""
    head = (
        "method",
        "learning rate",
        "seeds",
        "n",
        "pass@1",
        "of each seed",
        "pass@10",
        *METRICS.values(),
        "characters",
        "tokens learnt",
        "train s",
    )
    rows = []
    for name, method in sorted(results["methods"].items(), key=lambda entry: -sum(rates(entry[1]))):
        tokens, seconds, rate = mean(method, "tokens"), mean(method, "train_seconds"), method["runs"][0]["learning_rate"]
        rows.append(
            (
                f"`{name}`",
                f"{rate:g}" if rate else "",
                str(len(method["runs"])),
                "/".join(map(str, sorted({run["samples"] for run in method["runs"]}))),
                share(mean_with_interval(rates(method))),
                rate_of_each_seed(method),
                share(mean_with_interval(ten)) if (ten := rates(method, 10)) else "",
                *(f"{mean(method, metric):.3f}" if mean(method, metric) is not None else "" for metric in METRICS),
                f"{mean(method, 'mean_characters'):.0f}",
                f"{tokens:.0f}" if tokens else "",
                f"{seconds:.0f}" if seconds else "",
            )
        )
    return markdown(head, rows)


def difference(method, other):
    """pass@1 of a method less another's, problem by problem, over the seeds that both have; None if they share none."""
    if any(run["learning_rate"] is None for run in other["runs"]):  # a model that is not trained is the same for every seed
        return paired_difference(rates(other), rates(method))
    shared = {run["seed"] for run in method["runs"]} & {run["seed"] for run in other["runs"]}
    of_shared = [{"runs": [run for run in part["runs"] if run["seed"] in shared]} for part in (other, method)]
    return paired_difference(*map(rates, of_shared)) if shared else None


def differences(results, others=("base", "sft", "sft-same-rate", "sft-halves", "rejection")):
    """Differences of each method's pass@1 to that of others."""
    methods = results["methods"]
    others = [name for name in others if name in methods]
    rows = []
    for name in sorted(methods, key=lambda name: -sum(rates(methods[name]))):
        if name in ("published", others[0]):
            continue
        pairs = [None if other == name else difference(methods[name], methods[other]) for other in others]
        rows.append((f"`{name}`", *("" if pair is None else share(pair, "+") for pair in pairs)))
    return markdown(("pass@1, in points", *(f"less `{name}`" for name in others)), rows)


def tried(results):
    """pass@1 on the validation problems for each learning rate."""
    methods = {name: method for name, method in results["methods"].items() if method["tried"]}
    all_rates = sorted({rate for method in methods.values() for rate in method["tried"]}, key=float)
    rows = [
        (f"`{name}`", *(f"{method['tried'][rate]:.1%}" if rate in method["tried"] else "" for rate in all_rates))
        for name, method in methods.items()
    ]
    return markdown(("greedy pass@1, validation", *all_rates), rows)


def exports(results):
    """Greedy pass@1 of each exported model, as trained and in int8."""
    rows = [
        (
            f"`{name}`",
            share(mean_with_interval(run["exported"]["greedy"])),
            share(mean_with_interval(run["exported"]["greedy int8"])),
            share(paired_difference(run["exported"]["greedy"], run["exported"]["greedy int8"]), "+"),
        )
        for name, method in results["methods"].items()
        for run in method["runs"]
        if "exported" in run
    ]
    return markdown(("greedy pass@1", "as trained", "int8", "difference"), rows)


def share(value, sign=""):
    """A mean with its interval."""
    return f"{value.mean * 100:{sign}.1f} [{value.low * 100:{sign}.1f}, {value.high * 100:{sign}.1f}]"


def markdown(head, rows):
    """A table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def draw(results, path):
    """Losses over the updates, and pass@1 with its interval."""
    from cycler import cycler
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    losses.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * cycler(color=colormaps["tab10"].colors))
    names = sorted(results["methods"], key=lambda name: sum(rates(results["methods"][name])))
    for name in reversed(names):
        if curve := results["methods"][name]["runs"][0].get("curve"):
            losses.plot([entry["step"] for entry in curve], [entry["loss"] for entry in curve], label=name)
    losses.set_xlabel("update")
    losses.set_ylabel("loss (each method's own)")
    losses.set_yscale("log")
    if losses.lines:
        losses.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    for height, name in enumerate(names):
        value = mean_with_interval(rates(results["methods"][name]))
        scores.errorbar(
            value.mean * 100,
            height,
            xerr=[[(value.mean - value.low) * 100], [(value.high - value.mean) * 100]],
            fmt="o",
            color="#3f51b5" if name.startswith("rrtf") else "#757575",
            capsize=3,
        )
    scores.set_yticks(range(len(names)), names)
    scores.set_xlabel("pass@1 on the test problems, %, with 95 % interval")
    figure.savefig(path, dpi=110)


def print_report(results):
    """All tables."""
    print(json.dumps(results["groups"], indent=2))
    for part in (table(results), differences(results), tried(results), exports(results)):
        print("\n" + part)


def main():
    """Reads results and shows them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="`results.json`, or the folder of an experiment that still runs")
    parser.add_argument("--plot", type=Path, help="where the plots go (.png)")
    options = parser.parse_args()
    results = collect(options.results) if options.results.is_dir() else json.loads(options.results.read_text())
    print_report(results)
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
