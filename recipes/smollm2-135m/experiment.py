"""Does ranking feedback make a small model write better programs? Every method on the same ranked groups.

One command makes problems and groups, tunes each method's learning rate on validation problems, trains it with each seed, and
evaluates it on held-out problems; the table and the curves are drawn from what is done. Killed, it goes on.

    python recipes/smollm2-135m/experiment.py --model MODEL --output FOLDER [--preset cpu|gpu] [--methods base,rrtf,dpo]

With `--export METHOD` that method's model is then exported to int8 for ONNX Runtime and evaluated on the same problems.

| method | what |
|---|---|
| `published` | the model as it was published |
| `base` | after a short SFT on the references of other problems, as before any preference training; all others start from it |
| `sft` | the teacher's program of each group (TRL's `SFTTrainer`) |
| `rejection` | the student's own programs that pass, of the same problems (`SFTTrainer`) |
| `dpo`, `simpo` | best and worst of each group (TRL's `DPOTrainer`, experimental `CPOTrainer`) |
| `rrhf` | the group, RRHF's loss as in its code |
| `rrtf` and `rrtf-LOSS` | the group, `RRTFTrainer` with each `rank_loss` |
| `rrtf-sum` | `rrtf` with the fine-tuning term summed over tokens, as the paper prints it |
| `rrtf-light`, `rrtf-logistic-heavy` | a fifth of the ranking term, ten times that of `rrtf-logistic` |
| `rrtf-iterated`, `rrtf-light-iterated` | half of the groups, then the others' problems with candidates of the model so far |
| `rrtf-halves`, `sft-halves` | the same halves with the two schedules of `rrtf-iterated`, but the candidates of `base` |
| `sft-same-rate` | `sft` at the learning rate of `rrtf` |
| `sft-high-rate`, `rrtf-light-high-rate` | both at 1e-4 |
| `own-rejection` | no teacher: the student's programs that pass, where one passes and another fails |
| `own-rrhf` | no teacher: the same problems' groups, RRHF's loss |

All make the same number of updates, from batches of the same number of groups of the same problems. Tokens differ, since a
method that reads more of a group learns from more: they are reported. `rejection` draws on all training problems, and those
without a teacher on the ones where the student's programs differ. Two processes can share the folder, each with methods of
its own, once the data are made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from composed_problems import compose
from report import collect, draw, print_report

PRESETS = {
    "cpu": {
        "problems": {"test": 128, "validation": 80, "warm_up": 160, "train": 220},
        "groups": 96,
        "candidates": 3,
        "epochs": 1,
        "learning_rates": [1e-5, 3e-5],
        "pair_learning_rates": [5e-6, 2e-5],
        "seeds": [0],
        "test_samples": 10,
    },
    "gpu": {
        "problems": {"test": 200, "validation": 64, "warm_up": 160, "train": 800},
        "groups": 480,
        "candidates": 8,
        "epochs": 2,
        "learning_rates": [1e-5, 3e-5, 1e-4],
        "pair_learning_rates": [2e-6, 5e-6, 2e-5],
        "seeds": [0, 1, 2],
        "test_samples": 50,
    },
}
"""Settings for 2 CPU cores (hours) and for one GPU."""

METHODS = (
    *("published", "base", "sft", "rejection", "dpo", "simpo", "rrtf", "rrhf"),
    *("sft-same-rate", "sft-halves", "rrtf-halves"),
    *("rrtf-sum", "rrtf-light", "rrtf-iterated", "rrtf-light-iterated", "rrtf-hinge", "rrtf-logistic"),
    *("rrtf-logistic-heavy", "rrtf-plackett_luce", "rrtf-lambda"),
    *("sft-high-rate", "rrtf-light-high-rate", "own-rejection", "own-rrhf"),
)
PAIR_METHODS = ("dpo", "simpo")
"""They need smaller learning rates."""
IN_TWO_ROUNDS = {
    "rrtf-iterated": "rrtf",
    "rrtf-light-iterated": "rrtf-light",
    "rrtf-halves": "rrtf",
    "sft-halves": "sft",
}
"""Method -> what it is in each round."""
AT_A_FIXED_RATE = {"sft-high-rate": 1e-4, "rrtf-light-high-rate": 1e-4}
WITHOUT_TEACHER = ("own-rejection", "own-rrhf")
AT_THE_RATE_OF_RRTF = ("rrhf", "sft-halves", "sft-same-rate", *WITHOUT_TEACHER)
"""So are all whose names begin with `rrtf-`."""
GROUP_OPTIONS = {
    "rrhf": {"rank_loss": "rrhf"},
    "own-rrhf": {"rank_loss": "rrhf"},
    "rrtf": {},
    "rrtf-sum": {"sft_reduction": "sum"},
    "rrtf-light": {"rank_weight": 0.2},
    "rrtf-light-high-rate": {"rank_weight": 0.2},
    "rrtf-hinge": {"rank_loss": "hinge", "rank_margin": 0.3, "rank_weight": 0.1},
    "rrtf-logistic": {"rank_loss": "logistic", "beta": 2.0, "rank_margin": 0.5, "rank_weight": 0.1},
    "rrtf-logistic-heavy": {"rank_loss": "logistic", "beta": 2.0, "rank_margin": 0.5},
    "rrtf-plackett_luce": {"rank_loss": "plackett_luce", "rank_weight": 0.1},
    "rrtf-lambda": {"rank_loss": "lambda", "rank_weight": 0.1},
}
"""Options of the methods that read whole groups.

`rrtf` and `rrhf` push a pair only while it is in the wrong order. The others push every pair all the time, and summed over the
pairs of a group they outweigh the fine-tuning term, so they get a tenth; `rrtf-logistic-heavy` shows what happens otherwise.
"""
GROUPS_PER_UPDATE = 8
ROWS_PER_BATCH = 80
"""Candidates that are drawn side by side."""
WARM_UP_LEARNING_RATE = 2e-4
ANSWER = {"prompt_style": "paper", "max_new_tokens": 72, "stop_strings": ["\n```\n"], "top_p": 1.0, "top_k": 50}


def prepare_problems(folder, sizes):
    """Problems of each part; those to train on are decontaminated from the test and validation problems.

    All statements are made of the same words, so near-duplicates by words are not dropped, and a run of common words counts
    from 20 on, about a whole statement: shorter ones would drop every problem that shares a part with a held-out one, and
    leave others to train on than those that are tested. A common composition, program or tests are dropped.
    """
    from trl_rrtf import FilterArguments, FilterConfig, run_filter

    folder.mkdir(parents=True, exist_ok=True)
    rows = compose(100_000, seed=0)
    held_out = sizes["test"] + sizes["validation"]
    write_rows(folder / "test.jsonl", rows[: sizes["test"]])
    write_rows(folder / "validation.jsonl", rows[sizes["test"] : held_out])
    write_rows(folder / "others.jsonl", rows[held_out:])
    rules = FilterConfig(
        against=[str(folder / "test.jsonl"), str(folder / "validation.jsonl")],
        ngram=20,
        word_similarity=1,
        duplicate_similarity=1,
    )
    run_filter(FilterArguments(str(folder / "others.jsonl"), str(folder / "clean.jsonl")), rules)
    clean = read_rows(folder / "clean.jsonl")
    needed = sizes["warm_up"] + sizes["train"]
    if len(clean) < needed:
        raise SystemExit(f"{len(clean)} problems are left, {needed} are needed: make test and validation smaller")
    write_rows(folder / "warm_up.jsonl", clean[: sizes["warm_up"]])
    write_rows(folder / "train.jsonl", clean[sizes["warm_up"] : needed])


def rank_candidates(model, problems, candidates):
    """Ranked groups of the model's candidates and the reference for a problems file, beside it.

    Problems that all candidates solve make no group: they teach nothing that the model does not do already.
    """
    from trl_rrtf import (
        JudgeArguments,
        JudgeConfig,
        RankArguments,
        RankConfig,
        SampleArguments,
        SamplingConfig,
        run_judge,
        run_rank,
        run_sample,
    )

    sampled, judged, ranked = (str(problems.with_suffix(f".{name}.jsonl")) for name in ("candidates", "judged", "ranked"))
    sampling = SamplingConfig(
        str(model),
        num_generations=candidates,
        temperature=0.8,
        batch_size=ROWS_PER_BATCH // candidates,
        include_reference=True,
        **ANSWER,
    )
    run_sample(SampleArguments(str(problems), sampled), sampling)
    run_judge(JudgeArguments(sampled, judged), JudgeConfig())
    run_rank(RankArguments(judged, ranked), RankConfig(prompt_style="paper", partial_credit=0.5, max_student_pass_rate=0.99))
    return Path(ranked)


def choose_groups(data, number):
    """The first so many ranked groups, which all methods train on, in `groups.jsonl`."""
    ranked = read_rows(data / "train.ranked.jsonl")
    if len(ranked) < number:
        raise SystemExit(f"{len(ranked)} problems make a group, {number} are needed: set more training problems")
    write_rows(data / "groups.jsonl", ranked[:number])


def choose_own_groups(data, number):
    """At most so many groups of the student's candidates alone, as where no teacher is: one passes, another does not."""
    from trl_rrtf import RankArguments, RankConfig, run_rank

    if (data / "own_groups.jsonl").exists():
        return
    per_candidate = ("completions", "sources", "models", "verdicts", "raw_completions")
    own = []
    for row in read_rows(data / "train.judged.jsonl"):
        students = [index for index, source in enumerate(row["sources"]) if source == "student"]
        own.append({**row, **{name: [row[name][index] for index in students] for name in per_candidate}})
    write_rows(data / "own.judged.jsonl", own)
    rules = RankConfig(prompt_style="paper", partial_credit=0.5, min_best=0.99, require_signal=True)
    run_rank(RankArguments(str(data / "own.judged.jsonl"), str(data / "own.ranked.jsonl")), rules)
    write_rows(data / "own_groups.jsonl", read_rows(data / "own.ranked.jsonl")[:number])


def warm_up(model, problems, output):
    """The base model: a short SFT on the references of problems that no method trains on."""
    if (output / "config.json").exists():
        return
    rows = [
        {
            "prompt": rendered(row),
            "completions": [row["reference_solution"]],
            "sources": ["reference"],
        }
        for row in read_rows(problems)
    ]
    train("sft", model, rows, output, WARM_UP_LEARNING_RATE, seed=0, num_updates=updates_of(rows, epochs=1))


def rendered(problem):
    """The prompt as it is in the ranked groups."""
    from trl_rrtf.rows.prompts import PROMPT_STYLES

    return PROMPT_STYLES[ANSWER["prompt_style"]](problem["prompt"])


def rows_to_learn_from(method, data):
    """The rows that a method's trainer reads."""
    if method == "rejection":
        return own_passing_programs(data / "train.judged.jsonl")
    if method not in WITHOUT_TEACHER:
        return read_rows(data / "groups.jsonl")
    groups = read_rows(data / "own_groups.jsonl")
    if method != "own-rejection":
        return groups
    return [
        {"prompt": row["prompt"], "completions": [text], "sources": ["student"]}
        for row in groups
        for text, outcome in zip(row["completions"], row["outcomes"], strict=True)
        if outcome == "passed"
    ]


def own_passing_programs(judged):
    """The student's different programs that pass, of all problems: also of those that make no group since all passed."""
    return [
        {"prompt": rendered(row), "completions": [program], "sources": ["student"]}
        for row in read_rows(judged)
        for program in dict.fromkeys(
            text
            for text, source, verdict in zip(row["completions"], row["sources"], row["verdicts"], strict=True)
            if source == "student" and verdict["outcome"] == "passed"
        )
    ]


def updates_of(rows, epochs):
    """Updates of this many passes over the groups."""
    return max(1, round(epochs * len(rows) / GROUPS_PER_UPDATE))


def read_rows(path):
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write_rows(path, rows):
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(method, model, rows, output, learning_rate, seed, num_updates):
    """Trains one model; returns seconds, the number of completion tokens that were learnt from, and the losses."""
    import torch

    options = {
        "output_dir": str(output),
        "learning_rate": learning_rate,
        "seed": seed,
        "max_steps": num_updates,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, num_updates // 10),
        "per_device_train_batch_size": GROUPS_PER_UPDATE // 2,
        "gradient_accumulation_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "gradient_checkpointing": False,
        "max_length": 768,
        "bf16": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }
    builders = {
        "sft": sft_trainer,
        "sft-same-rate": sft_trainer,
        "sft-high-rate": sft_trainer,
        "rejection": sft_trainer,
        "own-rejection": sft_trainer,
        "dpo": dpo_trainer,
        "simpo": simpo_trainer,
    }
    builder = group_trainer if method in GROUP_OPTIONS else builders[method]
    trainer, completions = builder(method, model, rows, options)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    trainer.save_model(str(output))
    tokens = sum(len(trainer.processing_class(text)["input_ids"]) for text in completions)
    passes = num_updates * GROUPS_PER_UPDATE / len(trainer.train_dataset)
    curve = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    return {"train_seconds": seconds, "tokens": round(tokens * passes), "updates": num_updates, "curve": curve}


def group_trainer(method, model, rows, options):
    """RRTF and RRHF on whole groups."""
    from datasets import Dataset

    from trl_rrtf import RRTFConfig, RRTFTrainer

    columns = ("prompt", "completions", "scores", "sources")
    dataset = Dataset.from_list([{name: row[name] for name in columns} for row in rows])
    trainer = RRTFTrainer(str(model), RRTFConfig(**options, **GROUP_OPTIONS[method]), train_dataset=dataset)
    return trainer, [text for row in rows for text in row["completions"]]


def sft_trainer(method, model, rows, options):
    """The teacher's programs, or the student's."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    wanted = "student" if method.endswith("rejection") else "reference"
    examples = [
        {"prompt": row["prompt"], "completion": text}
        for row in rows
        for text, source in zip(row["completions"], row["sources"], strict=True)
        if source == wanted
    ]
    if not examples:
        raise SystemExit(f"{method}: no candidate to learn from")
    trainer = SFTTrainer(str(model), SFTConfig(**options), train_dataset=Dataset.from_list(examples))
    return trainer, [example["completion"] for example in examples]


def pairs_of(rows):
    """Best and worst candidate of each group."""
    pairs = []
    for row in rows:
        ordered = sorted(zip(row["scores"], row["completions"], strict=True))
        if ordered[0][0] < ordered[-1][0]:
            pairs.append({"prompt": row["prompt"], "chosen": ordered[-1][1], "rejected": ordered[0][1]})
    return pairs


def dpo_trainer(method, model, rows, options):
    """TRL's DPO with its default beta."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    pairs = pairs_of(rows)
    trainer = DPOTrainer(str(model), args=DPOConfig(**options), train_dataset=Dataset.from_list(pairs))
    return trainer, [pair[side] for pair in pairs for side in ("chosen", "rejected")]


def simpo_trainer(method, model, rows, options):
    """TRL's experimental CPO with SimPO's loss and its paper's beta and margin."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    pairs = pairs_of(rows)
    args = CPOConfig(**options, loss_type="simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=1.0)
    trainer = CPOTrainer(
        AutoModelForCausalLM.from_pretrained(model),
        args=args,
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    return trainer, [pair[side] for pair in pairs for side in ("chosen", "rejected")]


def evaluate(model, problems, output, samples, engine="transformers"):
    """pass@k, of one greedy program or of several at T = 0.4, and the mean length of what was written."""
    from trl_rrtf import EvaluateArguments, JudgeConfig, SamplingConfig, run_evaluate

    sampling = SamplingConfig(
        str(model),
        num_generations=samples,
        temperature=0.4 if samples > 1 else 0,
        batch_size=ROWS_PER_BATCH // samples,
        engine=engine,
        **ANSWER,
    )
    k = [1, 10] if samples >= 10 else [1]
    summary = run_evaluate(EvaluateArguments(str(problems), str(output), k=k), sampling, JudgeConfig())
    rows = read_rows(Path(output).with_suffix(".candidates.jsonl"))
    lengths = [len(text) for row in rows for text in row["raw_completions"]]
    measures = {f"pass@{value}": asdict(interval) for value, interval in summary.pass_at_k.items()}
    return {"pass@k": measures, "mean_characters": sum(lengths) / len(lengths)}


def held_out_metrics(model, groups, folder):
    """Ranking accuracy and log-probabilities on held-out groups, by the same trainer for every method."""
    import torch
    from datasets import Dataset

    from trl_rrtf import RRTFConfig, RRTFTrainer

    rows = read_rows(groups)
    dataset = Dataset.from_list([{name: row[name] for name in ("prompt", "completions", "scores", "sources")} for row in rows])
    args = RRTFConfig(str(folder), report_to="none", bf16=torch.cuda.is_available(), use_cpu=not torch.cuda.is_available())
    metrics = RRTFTrainer(str(model), args, train_dataset=dataset, eval_dataset=dataset).evaluate()
    names = ("ranking/accuracy", "ranking/margin", "logps/best", "logps/worst")
    return {name: metrics[f"eval_{name}"] for name in names if f"eval_{name}" in metrics}


def run_one(job):
    """One model: trained, evaluated, written down. In a process of its own."""
    data, folder = Path(job["data"]), Path(job["folder"])
    checkpoint, trained = folder / "model", folder / "training.json"
    if job["method"] in ("published", "base"):
        checkpoint = job["model"]
        trained.write_text("{}")
    elif not trained.exists():
        if job["method"] in IN_TWO_ROUNDS:
            training = train_in_two_rounds(job, checkpoint)
        else:
            num_updates = updates_of(read_rows(data / "groups.jsonl"), job["epochs"])  # the same for every method
            rows = rows_to_learn_from(job["method"], data)
            training = train(job["method"], job["model"], rows, checkpoint, job["learning_rate"], job["seed"], num_updates)
        trained.write_text(json.dumps(training))
    result = {**job, **json.loads(trained.read_text())}
    validation = folder / "validation.json"
    if not job["is_final"] or validation.exists():  # a method whose learning rate is given needs none
        result["validation"] = evaluate(checkpoint, data / "validation.jsonl", validation, 1)
    if job["is_final"]:
        result["test"] = evaluate(checkpoint, data / "test.jsonl", folder / "test.json", job["test_samples"])
        result["held_out_groups"] = held_out_metrics(checkpoint, data / "validation.ranked.jsonl", folder / "metrics")
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def train_in_two_rounds(job, checkpoint):
    """Half of the groups, then the other half, each with a schedule of its own.

    In the iterated ones the second half's problems get candidates of the model that came out of the first; in the others the
    groups stay, to show what the schedule does alone.
    """
    folder, data = Path(job["folder"]), Path(job["data"])
    method = IN_TWO_ROUNDS[job["method"]]
    groups = read_rows(data / "groups.jsonl")
    half = len(groups) // 2
    settings = (job["learning_rate"], job["seed"], updates_of(groups[:half], job["epochs"]))
    first = train(method, job["model"], groups[:half], folder / "first_round", *settings)
    later_groups = groups[half:]
    if job["method"].endswith("-iterated"):
        left = {group["problem_id"] for group in later_groups}
        problems = folder / "second_round.jsonl"
        write_rows(problems, [row for row in read_rows(data / "train.jsonl") if row["problem_id"] in left])
        later_groups = read_rows(rank_candidates(folder / "first_round", problems, job["candidates"]))
    second = train(method, folder / "first_round", later_groups, checkpoint, *settings)
    later = [{**entry, "step": entry["step"] + first["updates"]} for entry in second["curve"]]
    sums = {name: first[name] + second[name] for name in ("train_seconds", "tokens", "updates")}
    return {**sums, "curve": first["curve"] + later}


def start(job):
    """Runs a job in a process of its own unless it is done; returns its result, or None if it failed."""
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    earlier = json.loads(path.read_text()) if path.exists() else None
    if earlier is None or (job["is_final"] and "test" not in earlier):
        (folder / "job.json").write_text(json.dumps(job))
        with (folder / "log.txt").open("w") as log:
            command = [sys.executable, __file__, "--job", str(folder / "job.json")]
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            print(f"{folder.name}: failed, see {folder / 'log.txt'}", flush=True)
            return None
        earlier = json.loads(path.read_text())
    return earlier


def run_method(method, options, preset):
    """Tunes the learning rate with the first seed, then trains with the others."""
    common = {
        "method": method,
        "model": str(options.model) if method == "published" else str(options.output / "base_model"),
        "data": str(options.output / "data"),
        **{name: preset[name] for name in ("epochs", "candidates", "test_samples")},
    }
    if method in ("published", "base"):
        job = {**common, "folder": str(options.output / method), "is_final": True, "learning_rate": None, "seed": 0}
        return [result for result in [start(job)] if result is not None]
    if method in AT_A_FIXED_RATE:
        rates = [AT_A_FIXED_RATE[method]]
    elif method in AT_THE_RATE_OF_RRTF or method.startswith("rrtf-"):
        rates = [json.loads((options.output / "rrtf.json").read_text())["learning_rate"]]
    else:
        rates = preset["pair_learning_rates" if method in PAIR_METHODS else "learning_rates"]

    def job(rate, seed, is_final):
        folder = options.output / f"{method}-{rate:g}-{seed}"
        return {**common, "folder": str(folder), "learning_rate": rate, "seed": seed, "is_final": is_final}

    best = rates[0]
    if len(rates) > 1:
        tried = [result for rate in rates if (result := start(job(rate, preset["seeds"][0], False))) is not None]
        if not tried:
            return []
        best = max(tried, key=lambda result: result["validation"]["pass@k"]["pass@1"]["mean"])["learning_rate"]
    (options.output / f"{method}.json").write_text(json.dumps({"learning_rate": best}))
    return [result for seed in preset["seeds"] if (result := start(job(best, seed, True))) is not None]


def export_and_evaluate(run):
    """The trained model and its int8 export for ONNX Runtime, both greedy, on the test problems."""
    from trl_rrtf import ExportArguments, ExportConfig, run_export

    folder = Path(run["folder"])
    problems = Path(run["data"]) / "test.jsonl"
    evaluate(folder / "model", problems, folder / "greedy.json", 1)
    exported = folder / "onnx-int8"
    if not exported.exists():
        run_export(ExportArguments(str(folder / "model"), str(exported)), ExportConfig(precision="int8"))
    evaluate(exported, problems, folder / "greedy-int8.json", 1, engine="onnx")


def main():
    """Runs what is left to do, and draws the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or Hub id of the base model")
    parser.add_argument("--output", type=Path, help="folder for data, models and results")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=METHODS, help="with commas")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], help="instead of the preset's")
    parser.add_argument("--test_samples", type=int, help="instead of the preset's; below 10 there is no pass@10")
    parser.add_argument("--export", choices=METHODS, help="of `--methods`: exported to int8 and evaluated again")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_one(json.loads(options.job.read_text()))
        return
    if not options.model or not options.output:
        parser.error("give --model and --output")
    given = {name: value for name in ("seeds", "test_samples") if (value := getattr(options, name))}
    preset = {**PRESETS[options.preset], **given}
    data = options.output / "data"
    if not (data / "train.jsonl").exists():
        prepare_problems(data, preset["problems"])
    warm_up(options.model, data / "warm_up.jsonl", options.output / "base_model")
    for part in ("train", "validation"):
        rank_candidates(options.output / "base_model", data / f"{part}.jsonl", preset["candidates"])
    choose_groups(data, preset["groups"])
    choose_own_groups(data, preset["groups"])
    finished = {}
    for method in options.methods:
        if runs := run_method(method, options, preset):
            finished[method] = runs
            shown = runs[0]["test"]["pass@k"]["pass@1"]
            print(f"{method}: pass@1 {shown['mean']:.1%} [{shown['low']:.1%}, {shown['high']:.1%}]", flush=True)
    if options.export in finished:
        export_and_evaluate(finished[options.export][0])
    results = collect(options.output)
    (options.output / "results.json").write_text(json.dumps(results) + "\n")
    print_report(results)
    draw(results, options.output / "curves.png")


if __name__ == "__main__":
    main()
