"""Does ranking feedback make a small model write better programs? Every method on the same ranked groups.

One command makes the groups, tunes each method's learning rate on validation problems, trains it with each seed, and evaluates
it on held-out problems; the table and the curves are drawn from what is done. Killed, it goes on.

    python recipes/smollm2-135m/experiment.py --model MODEL --output FOLDER [--preset cpu|gpu] [--methods rrtf,dpo]

| method | trains on |
|---|---|
| `base` | nothing |
| `sft` | the teacher's program of each group (TRL's `SFTTrainer`) |
| `rejection` | the student's own programs that pass (`SFTTrainer`) |
| `dpo`, `simpo` | best and worst of each group (TRL's `DPOTrainer`, experimental `CPOTrainer`) |
| `rrhf` | the group, RRHF's loss as in its code |
| `rrtf` and `rrtf-LOSS` | the group, `RRTFTrainer` with each `rank_loss` |
| `rrtf-iterated` | the group, then groups with the candidates of the trained model |

All make the same number of updates, from batches of the same number of groups. Tokens differ, since a method that reads more
of a group learns from more: they are reported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

PRESETS = {
    "cpu": {"candidates": 2, "epochs": 1, "learning_rates": [5e-5, 2e-4], "seeds": [0], "test_samples": 10},
    "gpu": {"candidates": 8, "epochs": 3, "learning_rates": [1e-5, 3e-5, 1e-4, 3e-4], "seeds": [0, 1, 2], "test_samples": 50},
}
"""Settings for 2 CPU cores (hours) and for one GPU."""

METHODS = (
    *("base", "sft", "rejection", "dpo", "simpo", "rrhf", "rrtf"),
    *("rrtf-hinge", "rrtf-logistic", "rrtf-plackett_luce", "rrtf-lambda", "rrtf-iterated"),
)
PROBLEMS = Path(__file__).parents[1] / "data" / "easy_problems.jsonl"
VALIDATION = 24
"""So many of the training problems choose the learning rate and are not trained on."""
GROUPS_PER_UPDATE = 8
ANSWER = {"prompt_style": "paper", "max_new_tokens": 96, "stop_strings": ["\n```\n"], "top_p": 1.0, "top_k": 50}


def prepare_data(model, folder, preset):
    """Problems of each part, decontaminated, and ranked groups for training and for the held-out measures."""
    from trl_rrtf import JudgeConfig, RankConfig, SamplingConfig
    from trl_rrtf.judging.config import JudgeArguments
    from trl_rrtf.judging.stage import run_judge
    from trl_rrtf.problems.filters import FilterArguments, FilterConfig, run_filter
    from trl_rrtf.ranking import RankArguments, run_rank
    from trl_rrtf.sampling import SampleArguments, run_sample

    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in PROBLEMS.read_text().splitlines()]
    held_out = [row for row in rows if row["split"] == "heldout"]
    training = [row for row in rows if row["split"] == "train"]
    write_rows(folder / "test.jsonl", held_out)
    write_rows(folder / "train_and_validation.jsonl", training)
    kept = folder / "kept.jsonl"
    run_filter(
        FilterArguments(str(folder / "train_and_validation.jsonl"), str(kept)),
        FilterConfig(against=[str(folder / "test.jsonl")]),
    )
    clean = [json.loads(line) for line in kept.read_text().splitlines()]
    write_rows(folder / "validation.jsonl", clean[-VALIDATION:])
    write_rows(folder / "train.jsonl", clean[:-VALIDATION])
    for part in ("train", "test"):
        candidates, judged, ranked = (str(folder / f"{part}.{name}.jsonl") for name in ("candidates", "judged", "ranked"))
        sampling = SamplingConfig(
            str(model), num_generations=preset["candidates"], temperature=0.6, batch_size=32, include_reference=True, **ANSWER
        )
        run_sample(SampleArguments(str(folder / f"{part}.jsonl"), candidates), sampling)
        run_judge(JudgeArguments(candidates, judged), JudgeConfig())
        run_rank(RankArguments(judged, ranked), RankConfig(prompt_style="paper"))
    return folder / "train.ranked.jsonl"


def write_rows(path, rows):
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(method, model, groups, output, learning_rate, seed, epochs):
    """Trains one model; returns seconds and the number of completion tokens that were learnt from."""
    import torch

    num_updates = max(1, epochs * count_lines(groups) // GROUPS_PER_UPDATE)
    options = {
        "output_dir": str(output),
        "learning_rate": learning_rate,
        "seed": seed,
        "max_steps": num_updates,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, num_updates // 10),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": GROUPS_PER_UPDATE // 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "gradient_checkpointing": False,
        "max_length": 768,
        "bf16": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }
    rows = [json.loads(line) for line in Path(groups).read_text().splitlines()]
    builder = {"sft": sft_trainer, "rejection": sft_trainer, "dpo": dpo_trainer, "simpo": simpo_trainer}.get(
        method, group_trainer
    )
    trainer, completions = builder(method, model, rows, options)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    trainer.save_model(str(output))
    tokens = sum(len(trainer.processing_class(text)["input_ids"]) for text in completions)
    passes = num_updates * GROUPS_PER_UPDATE / max(1, len(rows))
    curve = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    return {"train_seconds": seconds, "tokens": round(tokens * passes), "updates": num_updates, "curve": curve}


def count_lines(path):
    """Rows of a file."""
    return len(Path(path).read_text().splitlines())


def group_trainer(method, model, rows, options):
    """RRTF and RRHF on whole groups."""
    from datasets import Dataset

    from trl_rrtf import RRTFConfig, RRTFTrainer

    loss = method.partition("-")[2]
    own = {"rank_loss": "rrhf"} if method == "rrhf" else {} if loss in ("", "iterated") else {"rank_loss": loss}
    columns = ("prompt", "completions", "scores", "sources")
    dataset = Dataset.from_list([{name: row[name] for name in columns} for row in rows])
    trainer = RRTFTrainer(str(model), RRTFConfig(**options, **own), train_dataset=dataset)
    return trainer, [text for row in rows for text in row["completions"]]


def sft_trainer(method, model, rows, options):
    """The teacher's program, or the student's own that pass."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    def wanted(source, outcome):
        return source == "reference" if method == "sft" else source == "student" and outcome == "passed"

    examples = [
        {"prompt": row["prompt"], "completion": text}
        for row in rows
        for text, source, outcome in zip(row["completions"], row["sources"], row["outcomes"], strict=True)
        if wanted(source, outcome)
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


def evaluate(model, problems, output, samples):
    """pass@1 and pass@k of the samples, and the mean length of what was written."""
    from trl_rrtf import JudgeConfig, SamplingConfig
    from trl_rrtf.evaluation import EvaluateArguments, run_evaluate

    sampling = SamplingConfig(str(model), num_generations=samples, temperature=0.4, batch_size=16, **ANSWER)
    k = [1, 10] if samples >= 10 else [1]
    summary = run_evaluate(EvaluateArguments(str(problems), str(output), k=k), sampling, JudgeConfig())
    rows = [json.loads(line) for line in Path(output).with_suffix(".candidates.jsonl").read_text().splitlines()]
    lengths = [len(text) for row in rows for text in row["raw_completions"]]
    return {"pass@k": summary["pass@k"], "passed": summary["passed"], "mean_characters": sum(lengths) / len(lengths)}


def held_out_metrics(model, groups, folder):
    """Ranking accuracy and log-probabilities on held-out groups, by the same trainer for every method."""
    import torch
    from datasets import Dataset

    from trl_rrtf import RRTFConfig, RRTFTrainer

    rows = [json.loads(line) for line in Path(groups).read_text().splitlines()]
    dataset = Dataset.from_list([{name: row[name] for name in ("prompt", "completions", "scores", "sources")} for row in rows])
    args = RRTFConfig(str(folder), report_to="none", bf16=torch.cuda.is_available(), use_cpu=not torch.cuda.is_available())
    metrics = RRTFTrainer(str(model), args, train_dataset=dataset, eval_dataset=dataset).evaluate()
    names = ("ranking/accuracy", "ranking/margin", "logps/best", "logps/worst")
    return {name: metrics[f"eval_{name}"] for name in names if f"eval_{name}" in metrics}


def run_one(job):
    """One model: trained, evaluated, written down. In a process of its own."""
    data, folder = Path(job["data"]), Path(job["folder"])
    result = dict(job)
    if job["method"] == "base":
        checkpoint = job["model"]
    else:
        start, groups = job["model"], data / "train.ranked.jsonl"
        if job["method"] == "rrtf-iterated":
            start, groups = job["start"], prepare_round(job)
        checkpoint = folder / "model"
        args = (job["method"], start, groups, checkpoint, job["learning_rate"], job["seed"], job["epochs"])
        result |= train(*args)
    result["validation"] = evaluate(checkpoint, data / "validation.jsonl", folder / "validation.json", 4)
    if job["is_final"]:
        result["test"] = evaluate(checkpoint, data / "test.jsonl", folder / "test.json", job["test_samples"])
        result["held_out_groups"] = held_out_metrics(checkpoint, data / "test.ranked.jsonl", folder / "metrics")
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def prepare_round(job):
    """Ranked groups with the candidates of the trained model, beside the earlier ones."""
    data = Path(job["folder"]) / "data"
    preset = {"candidates": job["candidates"]}
    groups = prepare_data(job["start"], data, preset)
    joined = data / "joined.ranked.jsonl"
    joined.write_text((Path(job["data"]) / "train.ranked.jsonl").read_text() + groups.read_text())
    return joined


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
        "model": str(options.model),
        "data": str(options.output / "data"),
        **{name: preset[name] for name in ("epochs", "candidates", "test_samples")},
    }
    if method == "base":
        return [start({**common, "folder": str(options.output / "base"), "is_final": True, "learning_rate": None, "seed": 0})]
    if method == "rrtf-iterated":
        rates = [json.loads((options.output / "rrtf.json").read_text())["learning_rate"]]
        common["start"] = str(options.output / f"rrtf-{rates[0]:g}-{preset['seeds'][0]}" / "model")
    else:
        rates = preset["learning_rates"]

    def job(rate, seed, is_final):
        folder = options.output / f"{method}-{rate:g}-{seed}"
        return {**common, "folder": str(folder), "learning_rate": rate, "seed": seed, "is_final": is_final}

    tried = [result for rate in rates if (result := start(job(rate, preset["seeds"][0], False))) is not None]
    if not tried:
        return []
    best = max(tried, key=lambda result: result["validation"]["pass@k"]["pass@1"]["mean"])["learning_rate"]
    (options.output / f"{method}.json").write_text(json.dumps({"learning_rate": best}))
    return [result for seed in preset["seeds"] if (result := start(job(best, seed, True))) is not None]


def print_table(results):
    """A row per method: means over its seeds, intervals over the problems of its first."""
    head = (
        "method",
        "learning rate",
        "pass@1",
        "pass@10",
        "accuracy",
        "log p best",
        "log p worst",
        "characters",
        "tokens",
        "s",
    )
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for method, runs in results.items():
        first = runs[0]
        mean = {k: sum(run["test"]["pass@k"][k]["mean"] for run in runs) / len(runs) for k in first["test"]["pass@k"]}
        interval = first["test"]["pass@k"]["pass@1"]
        metrics = first["held_out_groups"]
        cells = [
            method,
            f"{first['learning_rate']:g}" if first["learning_rate"] else "",
            f"{mean['pass@1']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]",
            f"{mean['pass@10']:.1%}" if "pass@10" in mean else "",
            *(f"{metrics.get(name, float('nan')):.3f}" for name in ("ranking/accuracy", "logps/best", "logps/worst")),
            f"{first['test']['mean_characters']:.0f}",
            str(first.get("tokens", "")),
            f"{first['train_seconds']:.0f}" if "train_seconds" in first else "",
        ]
        print("| " + " | ".join(cells) + " |")


def draw_curves(results, path):
    """Loss of each method over its updates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for method, runs in results.items():
        if runs[0].get("curve"):
            axes.plot(
                [entry["step"] for entry in runs[0]["curve"]], [entry["loss"] for entry in runs[0]["curve"]], label=method
            )
    axes.set_xlabel("update")
    axes.set_ylabel("loss (each method's own)")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main():
    """Runs what is left to do, and draws the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or Hub id of the base model")
    parser.add_argument("--output", type=Path, help="folder for data, models and results")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=METHODS, help="with commas")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_one(json.loads(options.job.read_text()))
        return
    if not options.model or not options.output:
        parser.error("give --model and --output")
    preset = PRESETS[options.preset]
    prepare_data(options.model, options.output / "data", preset)
    results = {}
    for method in options.methods:
        if runs := [run for run in run_method(method, options, preset) if run is not None]:
            results[method] = runs
            shown = runs[0]["test"]["pass@k"]["pass@1"]
            print(f"{method}: pass@1 {shown['mean']:.1%} [{shown['low']:.1%}, {shown['high']:.1%}]", flush=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print_table(results)
    draw_curves(results, options.output / "curves.png")


if __name__ == "__main__":
    main()
