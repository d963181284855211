"""Every check and benchmark that a GPU decides, in one command, into one table for the docs.

    make gpu-report                                         # the quick start's model, into runs/gpu-report
    python recipes/benchmarks/gpu_report.py --model PATH --output FOLDER [--small]

Each step is a process of its own with a limit of its own. One whose package or GPU is not here is skipped, and the table says
so. What is finished is kept in the folder with its log: the same command goes on where it was interrupted. `--small` is for
trying it on a CPU: the same steps with less of everything, where a CPU can do them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROBLEMS = ROOT / "recipes" / "data" / "composed_problems.jsonl"
PACKAGES = (
    *("trl-rrtf", "torch", "transformers", "trl", "peft", "bitsandbytes", "vllm"),
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-genai", "onnxruntime-genai-cuda"),
)


@dataclass(frozen=True)
class Step:
    """A check or a benchmark.

    Attributes:
        name: In the table.
        command: The command, given the options.
        result: What the table says, given the options and the lines that the command printed.
        packages: Modules that it imports.
        needs_gpu: Whether it says nothing without one.
        limit: Seconds.
    """

    name: str
    command: Callable[[argparse.Namespace], list[str]]
    result: Callable[[argparse.Namespace, list[str]], str]
    packages: tuple[str, ...] = field(default=("trl", "datasets"))
    needs_gpu: bool = False
    limit: int = 900


def script(*parts):
    """A command of this Python."""
    return [sys.executable, *map(str, parts)]


def checks(options, lines):
    """The checks of the trainer, each with its figure."""
    return "; ".join(line.removeprefix("ok").strip() for line in lines if line.startswith(("ok", "FAILED")))


def training_step(options):
    """TRL's trainers and ours on the same ranked groups."""
    sizes = (
        ["--candidates", "2", "--prompts", "32", "--rounds", "1", "--methods", "dpo,shared"]
        if options.small
        else ["--candidates", "8"]
    )
    return script(ROOT / "recipes/benchmarks/training_step.py", "--model", options.model, *sizes)


def seconds_per_group(options, lines):
    """Each method's time, and its speed against DPO."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][1:]
    return "; ".join(f"{method}: {seconds} s per group, {speed}" for _, _, method, seconds, _, speed, _ in rows)


def export(options):
    """An export, compared with PyTorch on the GPU where there is one."""
    folder, precision = options.output / "onnx", ["--precision", "fp32"]
    if has_gpu():
        precision = ["--precision", "fp16", "--device", "cuda"]
    return script("-m", "trl_rrtf.cli", "export", "--model", options.model, "--output", folder, *precision)


def parity(options, lines):
    """Where the graph was proved, and how equal it is."""
    report = json.loads((options.output / "onnx" / "export_report.json").read_text())
    share = min(probe["next_token_agreement"] for probe in report["probes"].values())
    return (
        f"{report['settings']['precision']}, {report['graph']}, proved on {report['provider']}: {share:.1%} of next tokens "
        f"agree, relative difference {report['parity']['relative_difference']:.2g}"
    )


def inference(options):
    """PyTorch, our graph and onnxruntime-genai on the same prompts."""
    engines = "torch,torch-bf16,torch-compiled,onnx-fp16,genai-fp16" if has_gpu() else "torch,onnx-fp32,genai-fp32"
    sizes = ["--batches", "1,2", "--new_tokens", "4", "--rounds", "1", "--problems", "0"] if options.small else []
    files = ["--work", options.output / "inference", "--rows", options.output / "inference.jsonl"]
    device = ["--device", "cuda" if has_gpu() else "cpu"]
    command = [ROOT / "recipes/benchmarks/inference.py", "--model", options.model, *files, *device, "--engines", engines]
    return script(*command, *sizes)


def milliseconds_per_token(options, lines):
    """Each engine's time per token at batch 1, and its tokens per second in the largest batch; and what failed."""
    rows = [json.loads(line) for line in (options.output / "inference.jsonl").read_text().splitlines()]
    found = []
    for row in rows:
        rates = [name for name in row if name.startswith("rate_")]
        found.append(f"{row['engine']}: {row['token_ms']:.1f} ms per token, {row[rates[-1]]:.0f} tokens/s at {rates[-1][5:]}")
    return "; ".join([*found, *(line for line in lines if " failed: " in line)])


def lora_round(options):
    """The whole loop, once, with LoRA: a file for `trl-rrtf run`."""
    count, tokens = (6, 8) if options.small else (64, 256)
    drawing = {"num_generations": 2 if options.small else 4, "temperature": 0.8, "max_new_tokens": tokens}
    training = {"use_peft": True, "num_train_epochs": 1, "learning_rate": 2e-4, "rank_weight": 0.2, "report_to": "none"}
    training |= {"bf16": has_gpu(), "use_cpu": not has_gpu(), "max_length": 1024, "gradient_checkpointing": False}
    evaluation = {"name": "heldout", "problems": str(PROBLEMS), "where": "split=heldout", "limit": count}
    settings = {
        **{"output_dir": str(options.output / "round"), "model": options.model, "problems": str(PROBLEMS)},
        **{"train_where": "split=train", "train_limit": count, "include_reference": True, "sample": drawing},
        **{"train": training, "evaluate": drawing, "benchmarks": [evaluation]},
    }
    path = options.output / "round.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    return script("-m", "trl_rrtf.cli", "run", "--config", path)


def pass_at_1(options, lines):
    """Before and after training."""
    results = json.loads((options.output / "round" / "results.json").read_text())
    before, after = (results[f"pass@k {when}"]["heldout"]["pass@1"]["mean"] for when in ("before", "after"))
    return f"pass@1 of held-out problems {before:.1%} before, {after:.1%} after"


STEPS = (
    Step("trainer's checks", lambda options: script(ROOT / "recipes/checks/gpu_training.py"), checks, needs_gpu=True),
    Step("training step", training_step, seconds_per_group),
    Step("export", export, parity, packages=("onnx", "onnxruntime", "onnxscript")),
    Step("inference", inference, milliseconds_per_token, packages=("onnx", "onnxruntime"), limit=1800),
    Step(
        "vLLM beside transformers",
        lambda options: script("-m", "tests.sampling.vllm_on_gpu"),
        lambda options, lines: lines[-1],
        packages=("vllm", "peft"),
        needs_gpu=True,
    ),
    Step("a round with LoRA", lora_round, pass_at_1, packages=("trl", "datasets", "peft"), limit=3600),
)


def has_gpu():
    """Whether torch sees one."""
    import torch

    return torch.cuda.is_available()


def obstacle(step):
    """Why a step cannot run here; empty if it can."""
    missing = [name for name in ("torch", "transformers", *step.packages) if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return "no GPU here" if step.needs_gpu and not has_gpu() else ""


def run_step(step, options):
    """Runs a step; its output goes to a log file. Returns its row."""
    if reason := obstacle(step):
        return {"status": "skipped", "result": reason, "seconds": 0.0}
    started = time.monotonic()
    log = options.output / f"{step.name.replace(' ', '_')}.log"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with log.open("w+", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                step.command(options), stdout=file, stderr=subprocess.STDOUT, timeout=step.limit, check=False, env=environment
            )
            problem = f"ended with status {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"did not end within {step.limit} s"
        file.seek(0)
        lines = [line.strip() for line in file if line.strip()]
    row = {"status": "failed" if problem else "done", "seconds": round(time.monotonic() - started, 1)}
    if problem:
        return {**row, "result": f"{problem}; {lines[-1][:200] if lines else 'no output'}; {log.name} has it all"}
    return {**row, "result": step.result(options, lines)}


def versions():
    """What the figures are of: machine and packages."""
    import torch

    found = [f"Python {platform.python_version()}"]
    if has_gpu():
        found = [torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}", *found]
        driver = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
        found.insert(1, f"driver {driver.stdout.split()[0]}" if driver.stdout.split() else "driver unknown")
    else:
        found = [f"no GPU, {os.cpu_count()} cores {platform.machine()}", *found]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def table(rows, options):
    """The report in Markdown."""
    shown = "small mode: only that it runs" if options.small else f"model `{Path(options.model).name}`"
    lines = [f"{time.strftime('%Y-%m-%d')}; {versions()}; {shown}.", "", "| step | result | seconds |", "|---|---|---|"]
    for name, row in rows.items():
        result = row["result"] if row["status"] == "done" else f"{row['status']}: {row['result']}"
        lines.append(f"| {name} | {result.replace('|', '/')} | {row['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def main():
    """Runs what is not done yet, and writes the table; status 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint: a folder or a Hub id")
    parser.add_argument("--output", type=Path, required=True, help="folder for report.md, logs and what is made")
    parser.add_argument("--small", action="store_true", help="less of everything, to try it on a CPU")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    state = options.output / "steps.json"
    settings = {"model": options.model, "small": options.small, "versions": versions()}
    earlier = json.loads(state.read_text()) if state.is_file() else {}
    if earlier and earlier["settings"] != settings:
        sys.exit(
            f"gpu_report: {options.output} holds a report of other settings ({earlier['settings']}); choose another --output"
        )
    rows = {name: row for name, row in earlier.get("steps", {}).items() if row["status"] == "done"}
    for step in STEPS:
        if step.name not in rows:
            print(f"{step.name} ...", flush=True)
            rows[step.name] = run_step(step, options)
            temporary = state.with_suffix(".tmp")
            temporary.write_text(json.dumps({"settings": settings, "steps": rows}, indent=2), encoding="utf-8")
            temporary.replace(state)
    rows = {step.name: rows[step.name] for step in STEPS}
    report = table(rows, options)
    (options.output / "report.md").write_text(report, encoding="utf-8")
    print(report)
    return 1 if any(row["status"] == "failed" for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
