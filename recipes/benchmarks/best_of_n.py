"""What choosing one of n candidates is worth, by each signal of `trl-rrtf select` and by several in a row.

Draws n candidates per problem, judges them on all tests, asks the model for its log-probabilities of them once, and then lets
every choice choose. Each row of the table is one choice; its difference is paired with one sample, over the problems.

    python recipes/benchmarks/best_of_n.py --model models/SmolLM2-135M-Instruct --work runs/best_of_n
    python recipes/benchmarks/best_of_n.py --judged J.jsonl --work runs/best_of_n          # candidates that are judged already

The first test of each problem is public, as the statement's example is; the others stay hidden from every choice. What is done
is kept in the folder, and the same command goes on there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from trl_rrtf import (
    JudgeArguments,
    JudgeConfig,
    SampleArguments,
    SamplingConfig,
    SelectArguments,
    SelectConfig,
    TeacherLogProbsArguments,
    TeacherLogProbsConfig,
    run_judge,
    run_sample,
    run_select,
    run_teacher_log_probs,
)

CHOICES = [
    ["public_tests"],
    ["agreement"],
    ["log_probability"],
    ["reward_model"],
    ["public_tests", "agreement"],
    ["public_tests", "log_probability"],
    ["public_tests", "reward_model"],
    ["agreement", "log_probability"],
    ["public_tests", "agreement", "log_probability"],
]
"""Signals in order of priority; those of models are left out where there is no such model."""


def judged_candidates(options, work):
    """The file of judged candidates: that which is given, or drawn and judged here."""
    if options.judged:
        return options.judged
    candidates, judged = str(work / "candidates.jsonl"), str(work / "judged.jsonl")
    sampling = SamplingConfig(
        model=options.model,
        num_generations=options.n,
        temperature=options.temperature,
        top_p=1.0,
        top_k=options.top_k,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        seed=options.seed,
        dtype="float32",  # CPUs without instructions for bfloat16 take many times as long with it
    )
    run_sample(SampleArguments(options.problems, candidates, limit=options.num_problems), sampling)
    run_judge(JudgeArguments(candidates, judged), JudgeConfig(timeout=options.timeout))
    return judged


def choices_of(options):
    """The choices for which there are models."""
    missing = {"log_probability": options.model, "reward_model": options.reward_model}
    return [by for by in CHOICES if all(missing.get(name, True) for name in by)]


def choose(options, work, scored, by):
    """One choice: its summary, and the seconds that it took."""
    name = "-".join(by)
    needs = {name: getattr(options, name) for name in ("reward_model",) if name in by}
    if {"public_tests", "agreement"} & set(by):
        needs["public_tests"] = options.public_tests
    if "agreement" in by:
        needs["num_inputs"] = options.num_inputs
    judging = JudgeConfig(timeout=options.timeout) if "public_tests" in needs else JudgeConfig()
    arguments = SelectArguments(scored, str(work / f"{name}.jsonl"), str(work / f"{name}.json"))
    started = time.perf_counter()
    return run_select(arguments, SelectConfig(by=by, **needs), judging), time.perf_counter() - started


def table_of(results):
    """Markdown: one sample, each choice, any of the candidates."""
    best = results[0][1].best_of_n
    lines = [
        "| choice | programs that pass all tests | more than one sample, in points | ties broken by order | seconds |",
        "|---|---|---|---|---|",
        f"| one sample (pass@1) | {best.one_sample} | | | |",
    ]
    for by, summary, seconds in results:
        table, ties = summary.best_of_n.table(), f"{summary.ties} of {summary.problems}"
        difference = table["difference"].replace(" points", "")
        lines.append(
            f"| {', then '.join(by)} (select@{best.n}) | {summary.best_of_n.select} | {difference} | {ties} | {seconds:.0f} |"
        )
    lines.append(f"| any (pass@{best.n}) | {best.any} | | | |")
    return "\n".join(lines)


def main():
    """Prints the table, and writes it to `table.md` in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="draws the candidates, and gives their log-probabilities")
    parser.add_argument("--reward_model", help="a sequence classifier with one label")
    parser.add_argument("--judged", help="judged candidate groups, instead of drawing some")
    drawing = parser.add_argument_group("where candidates are drawn, without --judged")
    drawing.add_argument("--problems", default="recipes/data/composed_problems.jsonl")
    drawing.add_argument("--num_problems", type=int, default=64)
    drawing.add_argument("--n", type=int, default=8, help="candidates per problem")
    drawing.add_argument("--temperature", type=float, default=0.8)
    drawing.add_argument("--top_k", type=int, default=50)
    drawing.add_argument("--max_new_tokens", type=int, default=64)
    drawing.add_argument("--batch_size", type=int, default=8, help="problems that are sampled together")
    parser.add_argument("--public_tests", type=int, default=1, help="tests that are public, the first ones")
    parser.add_argument("--num_inputs", type=int, default=16, help="generated inputs per problem")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds for all tests of a program")
    drawing.add_argument("--seed", type=int, default=42)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    options = parser.parse_args()
    if not options.model and not options.judged:
        parser.error("give --model to draw candidates, or --judged")
    options.work.mkdir(parents=True, exist_ok=True)
    scored = judged_candidates(options, options.work)
    if options.model:
        judged, scored = scored, str(options.work / "scored.jsonl")
        run_teacher_log_probs(TeacherLogProbsArguments(judged, scored), TeacherLogProbsConfig(options.model, dtype="float32"))
    results = [(by, *choose(options, options.work, scored, by)) for by in choices_of(options)]
    table = table_of(results)
    (options.work / "table.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
