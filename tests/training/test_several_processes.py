"""Two processes with gloo, DDP and FSDP2: the same updates, metrics and evaluation as one process with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ranked_row
from trl_rrtf import RRTFConfig

SCRIPT = Path(__file__).with_name("two_processes.py")
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several_processes")


@pytest.fixture(scope="module")
def run(tiny_model_dir, folder):
    rows = [ranked_row(2 + i % 4, prompt=f"Write add, variant {i}.", seed=i) for i in range(16)]
    (folder / "rows.json").write_text(json.dumps(rows))

    def run(processes, engine="ddp", options=None, checkpoint=None, name="run"):
        output = folder / f"{name}.json"
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(processes),
            str(SCRIPT),
        ]
        arguments = [str(tiny_model_dir), str(folder / "rows.json"), str(output), engine, json.dumps(options or {})]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(FSDP2 if engine == "fsdp2" else {})}
        done = subprocess.run(
            [*command, *arguments, *([str(checkpoint)] if checkpoint else [])],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        result = json.loads(output.read_text())
        assert result.pop("processes") == processes
        return result

    return run


@pytest.fixture(scope="module")
def one_process(run):
    result = run(1, name="one")
    assert len(result) > 20
    return result


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize("options", [{}, {"max_tokens_per_forward": 150}], ids=["whole", "in parts"])
def test_two_processes_give_the_losses_of_one(run, one_process, engine, options):
    """Groups are ragged, so the processes have different numbers of candidates, tokens and parts."""
    two = run(2, engine, options, name=f"{engine}-{len(options)}")
    if options:  # a group that is cut runs its prompt again in each part
        assert all(two.pop(f"{step} num_tokens") >= one_process[f"{step} num_tokens"] for step in range(1, 5))
        one_process = {name: value for name, value in one_process.items() if "num_tokens" not in name}
    assert two == pytest.approx(one_process, abs=1e-4)


def test_a_reference_model_on_two_processes(run):
    options = {"rank_loss": "logistic", "use_reference_model": True, "best_logp_penalty": 0.5}
    assert run(2, options=options, name="reference-2") == pytest.approx(run(1, options=options, name="reference-1"), abs=1e-4)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_a_checkpoint_of_two_processes_goes_on_with_one(run, folder, engine):
    options = {"optim": "adamw_torch", "learning_rate": 0.01, "save_strategy": "steps", "save_steps": 2}
    whole = run(2, engine, options, name=f"checkpoint-{engine}")
    # `Trainer` goes on with the checkpoint's batch size per device, so the other half of the batch comes by accumulation.
    options |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    checkpoint = folder / f"checkpoint-{engine}.json.out" / "checkpoint-2"
    resumed = run(1, engine, options, checkpoint=checkpoint, name=f"resumed-{engine}")
    assert resumed == pytest.approx(whole, abs=1e-3)


@pytest.fixture(scope="module")
def one_process_of_a_stream(run):
    """Without learning, so that evaluations agree whatever the updates; the updates of one pass over the rows."""
    options = {"shards": [16], "max_steps": 4, "learning_rate": 0.0}
    return run(1, options=options, name="stream-1")


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize(
    ("shards", "workers", "steps"),
    [([11, 5], 0, 6), ([5, 3, 1, 7], 2, 6), ([16], 0, 4), ([1, 9, 6], 1, 5)],
    ids=["a shard each", "two shards each", "one shard", "three shards"],
)
def test_a_stream_on_two_processes_counts_each_group_once(run, one_process_of_a_stream, engine, shards, workers, steps):
    """Shards of different lengths, so that a process is done earlier; their rows have the same numbers."""
    if engine == "fsdp2" and len(shards) != 2:
        pytest.skip("the loaders are the same")
    options = {"shards": shards, "max_steps": steps, "learning_rate": 0.0, "dataloader_num_workers": workers}
    two = run(2, engine, options, name=f"stream-{engine}-{len(shards)}")
    evaluated = {name: value for name, value in two.items() if name.startswith("eval_")}
    assert evaluated == pytest.approx({name: one_process_of_a_stream[name] for name in evaluated}, abs=1e-4)
    if len(shards) == 2:  # with one shard, accelerate fills the last batches with the first rows, as for any `Dataset`
        assert two[f"{steps} num_tokens"] == one_process_of_a_stream["4 num_tokens"]


def test_data_parallel_without_a_launcher_is_refused(tiny_model_dir, tmp_path, ranked_rows):
    from datasets import Dataset

    from trl_rrtf import RRTFTrainer

    args = RRTFConfig(str(tmp_path), bf16=False, use_cpu=True, report_to=[])
    args._n_gpu = 2  # as on a machine with two GPUs
    with pytest.raises(ValueError, match=r"does not support `nn.DataParallel`.*accelerate launch"):
        RRTFTrainer(str(tiny_model_dir), args, train_dataset=Dataset.from_list(ranked_rows))
