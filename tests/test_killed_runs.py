"""Runs that are killed at random moments end, when they are run again, with the bytes of a run that was not."""

from __future__ import annotations

import json
import multiprocessing
import random
import time

import pytest

KILLS = 10
PROBLEMS = 24


def sample_judge_rank(problems, model, folder):
    """In a process of its own, that can be killed."""
    from trl_rrtf import JudgeConfig, RankConfig, SamplingConfig
    from trl_rrtf.judging.config import JudgeArguments
    from trl_rrtf.judging.stage import run_judge
    from trl_rrtf.ranking import RankArguments, run_rank
    from trl_rrtf.sampling import SampleArguments, run_sample

    sampling = SamplingConfig(
        model, num_generations=2, max_new_tokens=6, batch_size=3, prompt_style="completion", include_reference=True
    )
    run_sample(SampleArguments(problems, f"{folder}/candidates.jsonl", temperatures=[0.5, 1.0]), sampling)
    run_judge(JudgeArguments(f"{folder}/candidates.jsonl", f"{folder}/judged.jsonl"), JudgeConfig())
    run_rank(RankArguments(f"{folder}/judged.jsonl", f"{folder}/ranked.jsonl"), RankConfig(prompt_style="completion"))


@pytest.mark.timeout(280)
def test_ten_kills_at_random_moments_change_no_byte(tiny_model_dir, tmp_path):
    problems = tmp_path / "problems.jsonl"
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": f"Write `f`, which returns {i}." + " Please." * (i % 5),
            "tests": [{"kind": "assert", "code": f"assert f() == {i}"}, {"kind": "assert", "code": "assert f() < 20"}],
            "entry_point": "f",
            "reference_solution": f"def f():\n    return {i}\n",
        }
        for i in range(PROBLEMS)
    ]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch", "trl_rrtf.sampling.engines.transformers", "trl_rrtf.judging.stage"])

    def start(folder):
        process = processes.Process(target=sample_judge_rank, args=(str(problems), str(tiny_model_dir), str(folder)))
        process.start()
        return process

    start(tmp_path / "warm").join()  # starts the server that the others are forked from
    started = time.monotonic()
    whole = start(tmp_path / "whole")
    whole.join()
    seconds = time.monotonic() - started
    assert whole.exitcode == 0

    moments, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        runs += 1
        folder = tmp_path / f"run-{runs}"
        alive = True
        while alive:
            process = start(folder)
            process.join(moments.uniform(0.1, 0.7) * seconds)
            alive = process.is_alive()
            if alive:
                process.kill()
                process.join()
                kills += 1
        for name in ("candidates.jsonl", "ranked.jsonl"):  # the judged rows hold seconds
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
