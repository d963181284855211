"""Run by `test_several_processes_give_the_losses_of_one` through `torchrun`: trains, writes its logs as JSON."""

from __future__ import annotations

import json
import sys

from datasets import Dataset

from trl_rrtf import RRTFConfig, RRTFTrainer

model, rows_file, output = sys.argv[1:]
with open(rows_file) as file:
    rows = json.load(file)


def config(per_device: int) -> RRTFConfig:
    return RRTFConfig(
        output + ".out",
        bf16=False,
        use_cpu=True,
        report_to=[],
        gradient_checkpointing=False,
        optim="sgd",
        learning_rate=0.5,
        max_grad_norm=0.0,
        logging_steps=1,
        num_train_epochs=1,
        per_device_train_batch_size=per_device,
        per_device_eval_batch_size=2,
        save_strategy="no",
    )


num_processes = config(1).world_size
trainer = RRTFTrainer(
    model,
    config(4 // num_processes),
    train_dataset=Dataset.from_list(rows),
    eval_dataset=Dataset.from_list(rows[:7]),  # an odd number, so that a sampler must repeat a row
)
trainer.train()
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
