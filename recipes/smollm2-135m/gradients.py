"""How strong is each ranking term beside the fine-tuning term, and does it say anything else?

    python recipes/smollm2-135m/gradients.py --model CHECKPOINT --groups runs/experiment/data/groups.jsonl [--number 16]

For the first groups, at a checkpoint: the norm of each ranking term's gradient at `rank_weight` 1 over that of the fine-tuning
term, and the cosine between the two. With a cosine of 1 the ranking term is fine-tuning at another learning rate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from experiment import GROUP_OPTIONS
from report import markdown

from trl_rrtf import RRTFConfig, RRTFTrainer

GROUPS_AT_ONCE = 4


def gradient(model, rows, **objective):
    """The gradient of the mean loss over the groups, as one vector, on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        args = RRTFConfig(folder, report_to="none", bf16=False, gradient_checkpointing=False, **objective)
        trainer = RRTFTrainer(str(model), args, train_dataset=Dataset.from_list(rows))
    trainer.model.train()
    groups = list(trainer.train_dataset)
    for start in range(0, len(groups), GROUPS_AT_ONCE):
        batch = trainer.data_collator(groups[start : start + GROUPS_AT_ONCE])
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch), num_items_in_batch=torch.tensor(len(groups)))
        loss.backward()
    return torch.cat([weight.grad.flatten().cpu() for weight in trainer.model.parameters() if weight.grad is not None])


def compare(model, rows):
    """A row per ranking loss: norm of its gradient over that of fine-tuning, and their cosine."""
    fine_tuning = gradient(model, rows, rank_weight=0.0)
    objectives = {}
    for name, options in GROUP_OPTIONS.items():
        if name == "rrtf" or "rank_loss" in options:
            objective = {**options, "rank_weight": 1.0}
            if objective not in objectives.values():
                objectives[name] = objective
    for name, objective in objectives.items():
        # The fine-tuning term stays in, and its gradient is taken off again: without it groups without pairs would be dropped.
        ranking = gradient(model, rows, **objective) - fine_tuning
        cosine = torch.nn.functional.cosine_similarity(ranking.double(), fine_tuning.double(), dim=0)
        yield f"`{name}`", f"{float(ranking.norm() / fine_tuning.norm()):.2f}", f"{float(cosine):.2f}"


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder or Hub id")
    parser.add_argument("--groups", type=Path, required=True, help="ranked groups, .jsonl")
    parser.add_argument("--number", type=int, default=16, help="of groups, the first of the file")
    options = parser.parse_args()
    columns = ("prompt", "completions", "scores", "sources")
    with options.groups.open() as lines:
        rows = [{name: row[name] for name in columns} for row in map(json.loads, islice(lines, options.number))]
    print(
        markdown(("ranking term at weight 1", "norm, of fine-tuning's", "cosine with it"), list(compare(options.model, rows)))
    )


if __name__ == "__main__":
    main()
