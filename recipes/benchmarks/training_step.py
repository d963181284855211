"""Time and memory of one training update on the same ranked groups: TRL's DPO and SimPO, RRHF's layout, and ours.

Every method does one update (forward, backward, no optimizer) on the same group of N candidates, a teacher and N - 1 students.

- `dpo`: TRL's `DPOTrainer` on the N - 1 teacher-student pairs, with its reference model.
- `simpo`: TRL's experimental `CPOTrainer` with `loss_type="simpo"` on the same pairs.
- `rrhf`: one padded row per candidate and logits of the whole vocabulary at every position, as in RRHF's public code.
- `padded`, `shared`: `RRTFTrainer` with `prefix_sharing` off and on.

Each runs in a process of its own, so that the peak memory is its own; the processes of a round run one after the
other, and the median over rounds is told. Memory is counted above what the process holds with its models loaded, nothing run.

    python recipes/benchmarks/training_step.py --model PATH [--candidates 2,4,8,16] [--prompts 128,512,2048] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("dpo", "simpo", "rrhf", "padded", "shared")
COMPLETION_TOKENS = (96, 160)


def make_group(vocab_size, num_candidates, prompt_tokens, seed=0):
    """Token ids of a prompt and of candidates with lengths about 128, and falling scores."""
    import random

    rng = random.Random(seed)
    tokens = range(10, vocab_size)
    prompt_ids = rng.choices(tokens, k=prompt_tokens)
    completion_ids = [rng.choices(tokens, k=rng.randint(*COMPLETION_TOKENS)) for _ in range(num_candidates)]
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "scores": [3.25] + [float(3 * i % 4) / 2 for i in range(1, num_candidates)],
        "sources": [1] + [0] * (num_candidates - 1),
        "group_index": 0,
        "num_dropped": 0,
    }


def pairs_of(group):
    """The N - 1 teacher-student pairs, tokenised as TRL's preference trainers want them."""
    prompt, (teacher, *students) = group["prompt_ids"], group["completion_ids"]
    return [{"prompt_ids": prompt, "chosen_ids": teacher, "rejected_ids": student} for student in students]


def build(method, model, group, folder):
    """A function that does one update's forward and backward, for one method."""
    import torch

    options = {"output_dir": folder, "report_to": [], "disable_tqdm": True, "gradient_checkpointing": False}
    on_gpu = torch.cuda.is_available()
    options |= {"bf16": on_gpu, "use_cpu": not on_gpu}
    builders = {"dpo": build_dpo, "simpo": build_simpo, "rrhf": build_rrhf}
    return builders.get(method, build_ours)(method, model, group, options)


def build_ours(method, model, group, options):
    """`RRTFTrainer` on the group."""
    from datasets import Dataset

    from trl_rrtf import RRTFConfig, RRTFTrainer

    args = RRTFConfig(**options, prefix_sharing=method == "shared", max_length=None)
    trainer = RRTFTrainer(model, args, train_dataset=Dataset.from_list([group]))
    batch = trainer.data_collator([group])
    return lambda: trainer.training_step(trainer.model, dict(batch), num_items_in_batch=1)


def build_dpo(method, model, group, options):
    """`DPOTrainer` on the pairs; the reference model runs in the step, as TRL does by default."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    pairs = pairs_of(group)
    args = DPOConfig(**options, max_length=None, per_device_train_batch_size=len(pairs))
    text = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    trainer = DPOTrainer(model, args=args, train_dataset=Dataset.from_list(text))
    batch = trainer.data_collator(pairs)
    trainer.current_gradient_accumulation_steps = 1  # set by `train`, which is not called here
    return lambda: trainer.training_step(trainer.model, dict(batch))


def build_simpo(method, model, group, options):
    """TRL's experimental `CPOTrainer` with SimPO's loss on the pairs."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    pairs = pairs_of(group)
    longest = max(map(len, group["completion_ids"])) + len(group["prompt_ids"])
    args = CPOConfig(**options, loss_type="simpo", cpo_alpha=0.0, max_length=longest, per_device_train_batch_size=len(pairs))
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    text = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    trainer = CPOTrainer(
        AutoModelForCausalLM.from_pretrained(model),
        args=args,
        train_dataset=Dataset.from_list(text),
        processing_class=tokenizer,
    )
    rows = []
    for pair in pairs:
        row = {"prompt": "", "chosen": "", "rejected": "", "prompt_input_ids": pair["prompt_ids"]}
        row["prompt_attention_mask"] = [1] * len(pair["prompt_ids"])
        for side in ("chosen", "rejected"):
            ids = pair["prompt_ids"] + pair[f"{side}_ids"]
            row |= {f"{side}_input_ids": ids, f"{side}_attention_mask": [1] * len(ids)}
            row[f"{side}_labels"] = [-100] * len(pair["prompt_ids"]) + pair[f"{side}_ids"]
        rows.append(row)
    batch = trainer.data_collator(rows)
    trainer.current_gradient_accumulation_steps = 1  # set by `train`, which is not called here
    return lambda: trainer.training_step(trainer.model, dict(batch))


def build_rrhf(method, model, group, options):
    """Padded rows, logits of the whole vocabulary at every position, RRHF's loss."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device).train()
    start = len(group["prompt_ids"])
    rows = [torch.tensor(group["prompt_ids"] + ids) for ids in group["completion_ids"]]
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    positions = torch.arange(1, input_ids.shape[1], device=device)
    scored = (positions >= start) & (positions < lengths[:, None])
    mask = torch.arange(input_ids.shape[1], device=device) < lengths[:, None]
    scores = torch.tensor(group["scores"], device=device)

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(input_ids=input_ids, attention_mask=mask.long(), use_cache=False).logits
        log_probs = logits[:, :-1].float().log_softmax(-1).gather(-1, input_ids[:, 1:, None])[..., 0]
        means = (log_probs * scored).sum(-1) / scored.sum(-1)
        wrong = (means[None, :] - means[:, None]).clamp(min=0)
        loss = wrong[scores[:, None] > scores[None, :]].sum() - means[0]
        loss.backward()
        return loss.detach()

    return step


def measure(method, model, num_candidates, prompt_tokens, steps):
    """One method in this process; prints a JSON line."""
    import logging

    import psutil
    import torch
    from transformers import AutoConfig

    os.environ["CI"] = "1"
    logging.disable(logging.WARNING)
    group = make_group(AutoConfig.from_pretrained(model).vocab_size, num_candidates, prompt_tokens)
    with tempfile.TemporaryDirectory() as folder:
        step = build(method, model, group, folder)
        on_gpu = torch.cuda.is_available()
        process = psutil.Process()
        before = torch.cuda.memory_allocated() if on_gpu else process.memory_info().rss
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            loss = float(step())
            seconds.append(time.perf_counter() - started)
        import resource

        peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # The first step also allocates; with more than one it is left out.
    tokens = len(group["prompt_ids"]) + sum(map(len, group["completion_ids"]))
    step_seconds = statistics.median(seconds[1:] or seconds)
    print(json.dumps({"seconds": step_seconds, "peak_mb": (peak - before) / 2**20, "tokens": tokens, "loss": loss}))


def main():
    """Runs every method on every size and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a causal language model: a folder or a Hub id")
    parser.add_argument("--candidates", default="8", help="numbers of candidates, with commas")
    parser.add_argument("--prompts", default="512", help="prompt lengths in tokens, with commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="updates per process; the first warms up")
    parser.add_argument("--results", type=Path, help="JSON file to write the rows to")
    parser.add_argument("--plot", type=Path, help="picture of time against candidates to write")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    candidates, prompts = ([int(number) for number in text.split(",")] for text in (options.candidates, options.prompts))
    if options.measure:
        measure(options.measure, options.model, candidates[0], prompts[0], options.steps)
        return
    rows = []
    for prompt_tokens in prompts:
        for num_candidates in candidates:
            rows += measure_size(options, num_candidates, prompt_tokens)
    print_table(rows)
    if options.results:
        options.results.write_text(json.dumps(rows, indent=2) + "\n")
    if options.plot:
        plot(rows, options.plot)


def measure_size(options, num_candidates, prompt_tokens):
    """Every method in turn, `rounds` times; medians."""
    results = {method: [] for method in options.methods.split(",")}
    for _ in range(options.rounds):
        for method, got in results.items():
            size = ["--candidates", str(num_candidates), "--prompts", str(prompt_tokens), "--steps", str(options.steps)]
            command = [sys.executable, __file__, "--model", options.model, "--measure", method, *size]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}"
                print(f"{method}, N = {num_candidates}, prompt {prompt_tokens}: {last}", flush=True)
                continue
            got.append(json.loads(done.stdout.strip().splitlines()[-1]))
    rows = []
    for method, got in results.items():
        if got:
            row = {name: statistics.median(entry[name] for entry in got) for name in ("seconds", "peak_mb", "tokens")}
            rows.append({"method": method, "candidates": num_candidates, "prompt": prompt_tokens, **row})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def print_table(rows):
    """A Markdown table; ratios are to DPO on the same group."""
    import torch
    import transformers
    import trl

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    print(f"\n{device}; Python {platform.python_version()}, torch {torch.__version__},")
    print(f"transformers {transformers.__version__}, trl {trl.__version__}\n")
    print("| prompt | N | method | seconds per group | tokens/s | speed against DPO | peak memory above the model, MB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        same = [other for other in rows if (other["prompt"], other["candidates"]) == (row["prompt"], row["candidates"])]
        dpo = next((other["seconds"] for other in same if other["method"] == "dpo"), None)
        ratio = f"{dpo / row['seconds']:.1f}" if dpo else ""
        speed = f"{row['seconds']:.2f} | {row['tokens'] / row['seconds']:.0f} | {ratio}"
        print(f"| {row['prompt']} | {row['candidates']} | {row['method']} | {speed} | {row['peak_mb']:.0f} |")


def plot(rows, path):
    """Seconds against candidates, a panel per prompt length."""
    import matplotlib.pyplot as plt

    prompts = sorted({row["prompt"] for row in rows})
    figure, panels = plt.subplots(1, len(prompts), figsize=(4.5 * len(prompts), 3.6), squeeze=False)
    for panel, prompt in zip(panels[0], prompts, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            points = [(row["candidates"], row["seconds"]) for row in rows if (row["method"], row["prompt"]) == (method, prompt)]
            panel.plot(*zip(*sorted(points), strict=True), marker="o", label=method)
        panel.set(title=f"prompt of {prompt} tokens", xlabel="candidates", ylabel="seconds per group", yscale="log")
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
