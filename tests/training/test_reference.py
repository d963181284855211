"""The initial model as reference: DPO's own numbers, computed once and kept."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset, IterableDataset
from transformers import AutoModelForCausalLM

from tests.training.test_trainer import make_trainer
from trl_rrtf import ConfigError
from trl_rrtf.training.objective import REFERENCE_COLUMN

ROWS = [
    {
        "prompt": f"Write add {i}.",
        "chosen": "def add(a, b):\n    return a + b\n",
        "rejected": "def add(a):\n    return " + "a" * i,
    }
    for i in range(1, 5)
]
AS_DPO = {
    "rank_loss": "logistic",
    "beta": 0.1,
    "length_normalization": 0.0,
    "use_reference_model": True,
    "sft_weight": 0.0,
}
STEPS = {
    "optim": "sgd",
    "learning_rate": 0.5,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "max_steps": 4,
    "logging_steps": 1,
    "per_device_train_batch_size": 4,
}


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_preference_rows_with_a_reference_give_the_losses_of_trls_dpo_trainer(tiny_model_dir, tmp_path):
    from trl import DPOConfig, DPOTrainer

    common = {"bf16": False, "report_to": [], "gradient_checkpointing": False, "disable_tqdm": True}
    theirs = DPOTrainer(
        str(tiny_model_dir),
        args=DPOConfig(str(tmp_path / "dpo"), beta=0.1, **STEPS, **common),
        train_dataset=Dataset.from_list(ROWS),
    )
    theirs.train()
    ours = make_trainer(tiny_model_dir, tmp_path / "ours", ROWS, **AS_DPO, **STEPS)
    ours.train()
    assert losses(ours)[0] == pytest.approx(0.6931, abs=1e-4)
    assert losses(ours)[-1] < 0.6, "the steps must change the loss, or this test shows nothing"
    assert losses(ours) == pytest.approx(losses(theirs), abs=2e-4)


def test_the_reference_is_the_initial_model_and_is_computed_once(tiny_model_dir, tmp_path, ranked_rows, monkeypatch):
    first = make_trainer(tiny_model_dir, tmp_path, ranked_rows, ranked_rows[:3], best_logp_penalty=1.0, max_steps=2)
    expected = first.log_likelihoods(list(first.train_dataset))
    got = torch.tensor([value for row in first.train_dataset for value in row[REFERENCE_COLUMN]])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    assert len(list(tmp_path.glob("reference_*.json"))) == 2
    first.train()
    assert not torch.allclose(first.log_likelihoods(list(first.train_dataset)), expected)

    monkeypatch.setattr("trl_rrtf.training.trainer.RRTFTrainer.log_likelihoods", None)  # not called again
    again = make_trainer(tiny_model_dir, tmp_path, ranked_rows, ranked_rows[:3], best_logp_penalty=1.0)
    assert again.train_dataset[REFERENCE_COLUMN][:] == first.train_dataset[REFERENCE_COLUMN][:]


def test_another_model_is_computed_anew(tiny_model_dir, tmp_path, ranked_rows):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    for factor in (1.0, 1.1):
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(factor)
        make_trainer(model, tmp_path, ranked_rows, best_logp_penalty=1.0, processing_class=tokenizer)
    assert len(list(tmp_path.glob("reference_*.json"))) == 2


def test_the_penalty_is_logged_once_the_best_has_fallen(tiny_model_dir, tmp_path, ranked_rows):
    options = {"best_logp_penalty": 0.5, "sft_weight": 0.0, "rank_weight": 1.0, **STEPS}
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, ranked_rows, rank_loss="logistic", **options)
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(
        metrics["eval_loss/rank"] + 0.5 * metrics.get("eval_loss/best_logp_penalty", 0.0), abs=1e-5
    )


def test_what_cannot_have_a_reference_is_refused(tiny_model_dir, tmp_path, ranked_rows):
    stream = IterableDataset.from_generator(lambda: iter(ranked_rows))
    with pytest.raises(ConfigError, match="`train_dataset`: a reference model needs a `Dataset`"):
        make_trainer(tiny_model_dir, tmp_path, stream, best_logp_penalty=1.0, max_steps=1)
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, best_logp_penalty=1.0, max_steps=1)
    assert trainer.evaluate(Dataset.from_list(ranked_rows[:2]))["eval_loss"] > 0
    trainer.train()
    with pytest.raises(ConfigError, match="has been trained since"):
        trainer.evaluate(Dataset.from_list(ranked_rows[2:4]))
