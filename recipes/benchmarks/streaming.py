"""Memory and time of the data stages over the number of problems: sample, judge, rank.

Each stage runs in a process of its own on the same rows; what is shown is the largest memory of that process and its seconds.
The memory must not grow with the rows. The sampler is a stand-in that answers at once, so that the stage itself is measured and
not a model; the judge is the real one up to `--judge_up_to` problems (it takes minutes per 10,000), above that verdicts are
made up for the rank stage.

    python recipes/benchmarks/streaming.py --work FOLDER [--sizes 1000,10000,100000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

CANDIDATES = 8


def write_problems(path, size):
    """Problems with a statement of a common length."""
    with path.open("w") as file:
        for i in range(size):
            row = {
                "problem_id": f"p/{i}",
                "prompt": f"Write a function `f` that adds {i} to its argument and returns the sum. "
                + "It may be large. " * 20,
                "tests": [{"kind": "assert", "code": f"assert f({j}) == {i + j}"} for j in range(3)],
                "entry_point": "f",
                "reference_solution": f"def f(x):\n    return x + {i}\n",
            }
            file.write(json.dumps(row) + "\n")


class StandInSampler:
    """Answers at once; half of its programs pass."""

    def sample(self, prompts, draws):
        """One program of a common length per seed."""
        return [[self._program(prompt, seed) for seed in row] for prompt, row in zip(prompts, draws.seeds, strict=True)]

    def _program(self, prompt, seed):
        number = prompt.split("adds ")[1].split()[0]
        comment = "    # " + "thinking " * 20 + str(seed)
        return f"```python\ndef f(x):\n{comment}\n    return x + {number if seed % 2 else 0}\n```"


def run_stage(stage, folder, size):
    """One stage; prints a JSON line."""
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

    started = time.perf_counter()
    problems, candidates, judged = (folder / f"{name}-{size}.jsonl" for name in ("problems", "candidates", "judged"))
    if stage == "sample":
        config = SamplingConfig("stand-in", num_generations=CANDIDATES, batch_size=64, prompt_style="completion")
        run_sample(SampleArguments(str(problems), str(candidates), overwrite=True), config, StandInSampler())
    elif stage == "judge":
        run_judge(JudgeArguments(str(candidates), str(judged), overwrite=True), JudgeConfig())
    else:
        output = folder / f"ranked-{size}.jsonl"
        run_rank(RankArguments(str(judged), str(output), overwrite=True), RankConfig(drop_teacher_below_student=False))
    row = {"seconds": time.perf_counter() - started, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    print(json.dumps(row))


def make_up_verdicts(candidates, judged):
    """Judged rows without a judge."""
    with candidates.open() as lines, judged.open("w") as output:
        for line in lines:
            row = json.loads(line)
            passed = {"outcome": "passed", "passed": 3, "total": 3, "seconds": 0.01, "detail": ""}
            failed = {"outcome": "failed", "passed": 0, "total": 3, "seconds": 0.01, "detail": "AssertionError"}
            row["verdicts"] = [failed if "x + 0" in program else passed for program in row["completions"]]
            output.write(json.dumps(row) + "\n")


def main():
    """Runs every stage at every size and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=[1000, 10_000, 100_000])
    parser.add_argument("--judge_up_to", type=int, default=10_000, help="problems up to which the real judge runs")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage:
        run_stage(options.stage, options.work, options.size)
        return
    print(f"| problems x {CANDIDATES} candidates | stage | seconds | peak memory, MB |\n|---|---|---|---|")
    for size in options.sizes:
        write_problems(options.work / f"problems-{size}.jsonl", size)
        for stage in ("sample", "judge", "rank"):
            if stage == "judge" and size > options.judge_up_to:
                make_up_verdicts(options.work / f"candidates-{size}.jsonl", options.work / f"judged-{size}.jsonl")
                continue
            command = [sys.executable, __file__, "--work", str(options.work), "--stage", stage, "--size", str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{stage} at {size}: {done.stderr.strip().splitlines()[-1]}")
            row = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"| {size} | {stage} | {row['seconds']:.0f} | {row['peak_mb']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
