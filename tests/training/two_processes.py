"""Run by `test_several_processes.py` through `torchrun`: trains, writes its logs as JSON.

two_processes.py MODEL ROWS OUTPUT {ddp,fsdp2} OPTIONS_AS_JSON [CHECKPOINT]

The options are those of `RRTFConfig`, and `shards`: the rows are a stream of shards with so many rows each.
"""

from __future__ import annotations

import json
import os
import sys

from accelerate.state import DistributedType, PartialState
from datasets import Dataset, IterableDataset

from trl_rrtf import RRTFConfig, RRTFTrainer

model, rows_file, output, engine, options, *checkpoint = sys.argv[1:]
with open(rows_file) as file:
    rows = json.load(file)
options = json.loads(options)
shards = options.pop("shards", None)


def rows_of(shards):
    for shard in shards:
        yield from shard


def stream():
    starts = [sum(shards[:i]) for i in range(len(shards))]
    parts = [rows[start : start + size] for start, size in zip(starts, shards, strict=True)]
    return IterableDataset.from_generator(rows_of, gen_kwargs={"shards": parts})


def config(per_device: int) -> RRTFConfig:
    settings = {
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "gradient_checkpointing": False,
        "optim": "sgd",
        "learning_rate": 0.5,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "num_train_epochs": 1,
        "per_device_train_batch_size": per_device,
        "per_device_eval_batch_size": 2,
        "save_strategy": "no",
    }
    return RRTFConfig(output + ".out", **{**settings, **options})


num_processes = int(os.environ["WORLD_SIZE"])
args = config(4 // num_processes)
if engine == "fsdp2":
    # accelerate shards over GPUs alone; FSDP2 itself runs on CPUs too. This lie is all that a GPU machine does not need.
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
trainer = RRTFTrainer(
    model,
    args,
    train_dataset=stream() if shards else Dataset.from_list(rows),
    # An odd number, so that a sampler must repeat a row.
    eval_dataset=stream() if shards else Dataset.from_list(rows[:7]),
)
trainer.train(resume_from_checkpoint=checkpoint[0] if checkpoint else None)
assert trainer.is_fsdp_enabled == (engine == "fsdp2")
final = trainer.evaluate()
if trainer.is_world_process_zero():
    result = {"processes": num_processes}
    for entry in trainer.state.log_history:
        if "loss/rank" in entry:
            names = [name for name in entry if "/" in name or name in ("loss", "num_tokens")]
            result |= {f"{entry['step']} {name}": entry[name] for name in names}
    result |= {name: value for name, value in final.items() if "/" in name or name == "eval_loss"}
    with open(output, "w") as file:
        json.dump(result, file)
trainer.accelerator.wait_for_everyone()
trainer.accelerator.end_training()
sys.stdout.flush()
# Not through the end of the interpreter: a thread of gloo may still give back a tensor of the last barrier, for which it waits
# for the interpreter's lock and is ended, which aborts the process (torch 2.13, 1 run in 10 with FSDP2 on a busy machine).
os._exit(0)
