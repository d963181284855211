"""What choosing one of n candidates is worth, by each signal of `trl-rrtf select` and by several, and what repair turns are.

Draws n candidates per problem, judges them on all tests, asks the model for its log-probabilities of them once, and then lets
every choice choose. With `--repair_turns` a candidate that fails its public tests is shown how and written again. Each row of
the table is one choice or turn; its difference is paired with one sample, over the problems.

    python recipes/benchmarks/best_of_n.py --model models/SmolLM2-135M-Instruct --work runs/best_of_n --repair_turns 2
    python recipes/benchmarks/best_of_n.py --judged J.jsonl --work runs/best_of_n          # candidates that are judged already

The first test of each problem is public, as the statement's example is; the others stay hidden from every choice. What is done
is kept in the folder, and the same command goes on there.
"""

from __future__ import annotations

import argparse
import json
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
    after_repairs,
    run_judge,
    run_sample,
    run_select,
    run_teacher_log_probs,
)
from trl_rrtf.evaluation.statistics import mean_with_interval, paired_difference
from trl_rrtf.rows.files import stream_rows
from trl_rrtf.rows.records import CandidateGroup, JudgedGroup

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
        prompt_style=options.prompt_style,
        batch_size=options.batch_size,
        seed=options.seed,
        dtype="float32",  # CPUs without instructions for bfloat16 take many times as long with it
    )
    repairs = {"repair_turns": options.repair_turns, "public_tests": options.public_tests} if options.repair_turns else {}
    judging = JudgeConfig(timeout=options.timeout)
    arguments = SampleArguments(options.problems, candidates, where=options.where, limit=options.num_problems, **repairs)
    run_sample(arguments, sampling, judging=judging if repairs else None)
    run_judge(JudgeArguments(candidates, judged), judging)
    return judged


def without_repairs(judged, work):
    """The file of the first attempts alone: what a choice chooses from."""
    groups = list(stream_rows(judged, JudgedGroup))
    if all(candidate.repair_of is None for group in groups for candidate in group.candidates):
        return judged
    firsts = [
        CandidateGroup.from_problem(group, [candidate for candidate in group.candidates if candidate.repair_of is None])
        for group in groups
    ]
    path = work / "firsts.jsonl"
    path.write_text("".join(json.dumps(group.to_row()) + "\n" for group in firsts))
    return str(path)


def choices_of(options):
    """The choices for which there are models."""
    missing = {"log_probability": options.model, "reward_model": options.reward_model}
    return [by for by in CHOICES if all(missing.get(name, True) for name in by)]


def choose(options, work, scored, by):
    """One choice: its summary, and the seconds that it took."""
    name = "-".join(by)
    needs = {"reward_model": options.reward_model} if "reward_model" in by else {}
    if {"public_tests", "agreement"} & set(by):
        needs["public_tests"] = options.public_tests
    if "agreement" in by:
        needs["num_inputs"] = options.num_inputs
    judging = JudgeConfig(timeout=options.timeout) if "public_tests" in needs else JudgeConfig()
    arguments = SelectArguments(scored, str(work / f"{name}.jsonl"), str(work / f"{name}.json"))
    started = time.perf_counter()
    return run_select(arguments, SelectConfig(by=by, **needs), judging), time.perf_counter() - started


def in_points(difference):
    """A difference of two shares, in points, with its interval."""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def repair_rows(judged):
    """A row of the table for each repair turn."""
    first, *turns = after_repairs(stream_rows(judged, JudgedGroup)).values()
    for number, turn in enumerate(turns, start=1):
        name = f"after {number} repair turn{'s' if number > 1 else ''}"
        yield f"| {name} | {mean_with_interval(turn)} | {in_points(paired_difference(first, turn))} | | |"


def table_of(results, repairs):
    """Markdown: one sample, each choice, each repair turn, any of the candidates."""
    best = results[0][1].best_of_n
    lines = [
        "| choice | programs that pass all tests | more than one sample, in points | ties broken by order | seconds |",
        "|---|---|---|---|---|",
        f"| one sample (pass@1) | {best.one_sample} | | | |",
    ]
    for by, summary, seconds in results:
        choice, ties = summary.best_of_n, f"{summary.ties} of {summary.problems}"
        lines.append(
            f"| {', then '.join(by)} (select@{best.n}) | {choice.select} | {in_points(choice.difference)} | {ties} "
            f"| {seconds:.0f} |"
        )
    lines += repairs
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
    drawing.add_argument("--where", help="only these problems, such as split=heldout")
    drawing.add_argument("--num_problems", type=int, default=64)
    drawing.add_argument("--n", type=int, default=8, help="candidates per problem")
    drawing.add_argument("--temperature", type=float, default=0.8)
    drawing.add_argument("--top_k", type=int, default=50)
    drawing.add_argument("--max_new_tokens", type=int, default=64)
    drawing.add_argument("--repair_turns", type=int, default=0, help="turns in which failing candidates are written again")
    drawing.add_argument("--batch_size", type=int, default=8, help="problems that are sampled together")
    parser.add_argument("--prompt_style", default="chat", help="chat, paper or completion: as the model was trained")
    parser.add_argument("--public_tests", type=int, default=1, help="tests that are public, the first ones")
    parser.add_argument("--num_inputs", type=int, default=16, help="generated inputs per problem")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds for all tests of a program")
    drawing.add_argument("--seed", type=int, default=42)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    options = parser.parse_args()
    if not options.model and not options.judged:
        parser.error("give --model to draw candidates, or --judged")
    options.work.mkdir(parents=True, exist_ok=True)
    judged = judged_candidates(options, options.work)
    firsts = scored = without_repairs(judged, options.work)
    if options.model:
        scored = str(options.work / "scored.jsonl")
        run_teacher_log_probs(
            TeacherLogProbsArguments(firsts, scored),
            TeacherLogProbsConfig(options.model, options.prompt_style, dtype="float32"),
        )
    results = [(by, *choose(options, options.work, scored, by)) for by in choices_of(options)]
    table = table_of(results, list(repair_rows(judged)))
    (options.work / "table.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
