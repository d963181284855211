"""`RRTFTrainer` on real tiny models: loss, invariances, accumulation, resume, formats, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset, IterableDataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_rrtf import ConfigError, DataCollatorForRankedGroups, LoadError, RowError, RRTFConfig, RRTFTrainer
from trl_rrtf.models.checkpoint_log_probs import CheckpointLogProbs
from trl_rrtf.training.metrics import STATISTICS


def make_trainer(model, output_dir, rows, eval_rows=None, **options):
    extra = {name: options.pop(name) for name in ("peft_config", "processing_class", "data_collator") if name in options}
    options = {"bf16": False, "report_to": [], "gradient_checkpointing": False, "disable_tqdm": True, **options}
    return RRTFTrainer(
        model=model if not isinstance(model, Path) else str(model),
        args=RRTFConfig(str(output_dir), **options),
        train_dataset=Dataset.from_list(rows) if isinstance(rows, list) else rows,
        eval_dataset=Dataset.from_list(eval_rows) if isinstance(eval_rows, list) else eval_rows,
        **extra,
    )


def eval_metrics(model, output_dir, rows, **options):
    return make_trainer(model, output_dir, rows, rows, **options).evaluate()


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def reference_losses(model_dir, rows, name):
    """Each group's (ranking, fine-tuning) loss, written down once more from the paper with plain logits."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    losses = []
    for row in rows:
        logps = []
        for text in row["completions"]:
            ids = torch.tensor([tokenizer(row["prompt"] + text + tokenizer.eos_token)["input_ids"]])
            start = len(tokenizer(row["prompt"])["input_ids"])
            with torch.no_grad():
                log_probs = model(ids).logits[0].log_softmax(-1)
            token_log_probs = log_probs[:-1].gather(1, ids[0, 1:, None])[start - 1 :, 0]
            logps.append(token_log_probs.mean().item())
        n, rank = len(logps), 0.0
        for i in range(n):
            for j in range(n):
                gap = row["scores"][i] - row["scores"][j]
                if gap > 0 and (name == "rrhf" or (row["sources"][i] == "teacher" and row["sources"][j] == "student")):
                    rank += (gap if name == "rrtf" else 1.0) * max(0.0, logps[j] - logps[i])
        losses.append((rank, -logps[0]))
    return losses


@pytest.mark.parametrize("name", ["rrtf", "rrhf"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_loss_is_the_papers(tiny_model_dir, tmp_path, ranked_rows, name, batch_size):
    """Also RRHF's defect 3: the fine-tuning loss is the mean over the target alone, without prompt and padding."""
    expected = torch.tensor(reference_losses(tiny_model_dir, ranked_rows, name)).mean(dim=0)
    assert expected[0] > 0.1, "the rows must make the hinge active, or this test shows nothing"
    options = {"rank_loss": name, "rank_weight": 2.0, "sft_weight": 0.5, "per_device_eval_batch_size": batch_size}
    metrics = eval_metrics(tiny_model_dir, tmp_path, ranked_rows, **options)
    assert metrics["eval_loss/rank"] == pytest.approx(expected[0].item(), abs=1e-5)
    assert metrics["eval_loss/sft"] == pytest.approx(expected[1].item(), abs=1e-5)
    assert metrics["eval_loss"] == pytest.approx((2.0 * expected[0] + 0.5 * expected[1]).item(), abs=1e-5)


def test_a_groups_loss_does_not_depend_on_company_padding_or_order(tiny_model_dir, tmp_path, ranked_rows):
    row = ranked_rows[3]
    order = [2, 0, 4, 1, 3]
    shuffled = {"prompt": row["prompt"], **{key: [row[key][i] for i in order] for key in ("completions", "scores", "sources")}}
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows)
    trainer.model.eval()

    def first_loss(rows, **layout):
        prepared = trainer.prepare_groups(Dataset.from_list(rows), trainer.processing_class, trainer.args, "test")
        batch = DataCollatorForRankedGroups(pad_token_id=0, **layout)(list(prepared))
        trainer._eval_statistics = []
        with torch.no_grad():
            trainer.compute_loss(trainer.model, batch)
        return trainer._eval_statistics[0][1][0, STATISTICS.index("loss")].item()

    alone = first_loss([row])
    assert first_loss([row, *ranked_rows[4:9]]) == pytest.approx(alone, abs=1e-5)
    assert first_loss([row], pad_to_multiple_of=128) == pytest.approx(alone, abs=1e-5)
    company = [row, *ranked_rows[4:9]]
    assert first_loss(company, prefix_sharing=True) == pytest.approx(alone, abs=1e-5)
    assert first_loss(company, prefix_sharing=True, row_token_budget=200) == pytest.approx(alone, abs=1e-5)
    assert first_loss(company, prefix_sharing=True, max_tokens_per_forward=60) == pytest.approx(alone, abs=1e-5)
    assert first_loss(company, max_tokens_per_forward=100) == pytest.approx(alone, abs=1e-5)
    assert first_loss([shuffled]) == pytest.approx(alone, abs=1e-5)


def test_bfloat16_agrees_within_rounding(tiny_model_dir, tmp_path, ranked_rows):
    full = eval_metrics(tiny_model_dir, tmp_path / "a", ranked_rows)
    half = eval_metrics(tiny_model_dir, tmp_path / "b", ranked_rows, bf16=True, use_cpu=True)
    assert half["eval_loss"] == pytest.approx(full["eval_loss"], rel=2e-2)
    assert half["eval_loss"] != full["eval_loss"]


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 8), (2, 4), (4, 2)])
def test_an_update_does_not_depend_on_how_it_is_split(tiny_model_dir, tmp_path, ranked_rows, batch_size, steps):
    def train(folder, batch_size, steps):
        options = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "num_train_epochs": 1, "logging_steps": 1}
        trainer = make_trainer(
            tiny_model_dir,
            folder,
            ranked_rows[:12],  # the second update has 4 groups where the first has 8
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            **options,
        )
        trainer.train()
        return weights(trainer), [entry for entry in trainer.state.log_history if "loss/rank" in entry]

    expected_weights, expected_logs = train(tmp_path / "whole", 8, 1)
    got_weights, got_logs = train(tmp_path / "split", batch_size, steps)
    initial = weights(make_trainer(tiny_model_dir, tmp_path / "initial", ranked_rows))
    assert (expected_weights - initial).abs().max() > 1e-3, "the updates must move the weights, or this test shows nothing"
    torch.testing.assert_close(got_weights, expected_weights, atol=2e-6, rtol=0)
    assert len(expected_logs) == 2
    for got, expected in zip(got_logs, expected_logs, strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], abs=2e-4)  # `Trainer` rounds it
        metrics = [name for name in expected if "/" in name or name == "num_tokens"]
        assert {name: got[name] for name in metrics} == pytest.approx({name: expected[name] for name in metrics}, abs=1e-5)


def test_metrics_are_means_over_groups_or_pairs_not_over_batches(tiny_model_dir, tmp_path, ranked_rows):
    metrics = eval_metrics(tiny_model_dir, tmp_path, ranked_rows, per_device_eval_batch_size=3)
    trainer = make_trainer(tiny_model_dir, tmp_path / "each", ranked_rows)
    one_by_one = [
        trainer.evaluate(Dataset.from_list([row])) | {"pairs": sum(row["scores"][0] > score for score in row["scores"][1:])}
        for row in ranked_rows
    ]
    pairs = sum(entry["pairs"] for entry in one_by_one)
    for name in ("eval_ranking/accuracy", "eval_ranking/margin"):
        expected = sum(entry[name] * entry["pairs"] for entry in one_by_one if entry["pairs"]) / pairs
        assert metrics[name] == pytest.approx(expected, abs=1e-5)
    for name in ("eval_loss", "eval_logps/best", "eval_logps/worst", "eval_ranking/active_pairs", "eval_groups/without_signal"):
        assert metrics[name] == pytest.approx(sum(entry[name] for entry in one_by_one) / len(ranked_rows), abs=1e-5)


def test_resume_gives_the_weights_of_an_uninterrupted_run(tiny_model_dir, tmp_path, ranked_rows):
    options = {"learning_rate": 1e-2, "max_steps": 6, "save_steps": 3, "logging_steps": 2, "per_device_train_batch_size": 3}
    whole = make_trainer(tiny_model_dir, tmp_path / "whole", ranked_rows, **options)
    whole.train()
    resumed = make_trainer(tiny_model_dir, tmp_path / "resumed", ranked_rows, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert torch.equal(weights(resumed), weights(whole))
    last_tokens = [trainer.state.num_input_tokens_seen for trainer in (whole, resumed)]
    assert last_tokens[0] == last_tokens[1] > 0


def test_training_raises_the_accuracy_and_saves_what_transformers_loads(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, ranked_rows, learning_rate=3e-2, num_train_epochs=15)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_ranking/accuracy"] > before["eval_ranking/accuracy"] + 0.1
    trainer.save_model()
    trainer.create_model_card()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), weights(trainer))
    assert tokenizer("def") == AutoTokenizer.from_pretrained(tiny_model_dir)("def")
    card = (tmp_path / "README.md").read_text()
    assert "| `rank_loss` | rrtf |" in card
    assert "None" not in card


def test_a_checkpoint_tells_what_its_model_says_of_a_fixed_text(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, max_steps=2, save_steps=1)
    trainer.train()
    trainer.save_model()
    earlier = CheckpointLogProbs.load(tmp_path / "checkpoint-1")
    record = CheckpointLogProbs.load(tmp_path)
    assert CheckpointLogProbs.load(tmp_path / "checkpoint-2") == record
    assert earlier.difference(record.log_probs)[0] > 1e-5  # it was trained in between
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert AutoTokenizer.from_pretrained(tmp_path)(record.text)["input_ids"][: len(record.input_ids)] == record.input_ids
    ids = torch.tensor([record.input_ids])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0]
    mean, largest = record.difference(log_probs.tolist())
    assert mean <= largest < 1e-4


def test_conversational_rows(tiny_model_dir, tmp_path, ranked_rows):
    rows = [
        {
            **row,
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completions": [[{"role": "assistant", "content": text}] for text in row["completions"]],
        }
        for row in ranked_rows
    ]
    trainer = make_trainer(tiny_model_dir, tmp_path, rows, max_steps=1)
    assert trainer.train().training_loss > 0


def test_preference_rows(tiny_model_dir, tmp_path):
    rows = [{"prompt": "Write add.", "chosen": f"return a + {i}", "rejected": "no"} for i in range(8)]
    metrics = eval_metrics(tiny_model_dir, tmp_path, rows)
    assert metrics["eval_groups/without_signal"] == 0.0


def test_streams_and_several_evaluation_sets(tiny_model_dir, tmp_path, ranked_rows):
    stream = IterableDataset.from_generator(lambda: iter(ranked_rows))
    sets = {"first": Dataset.from_list(ranked_rows[:5]), "second": Dataset.from_list(ranked_rows[5:])}
    trainer = make_trainer(tiny_model_dir, tmp_path, stream, sets, max_steps=2, eval_strategy="steps", eval_steps=2)
    trainer.train()
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert {"eval_first_ranking/accuracy", "eval_second_ranking/accuracy", "eval_first_loss"} <= logged


def test_peft(tiny_model_dir, tmp_path, ranked_rows):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(tiny_model_dir, tmp_path / "a", ranked_rows, peft_config=config, max_steps=2, learning_rate=1e-2)
    trainer.train()
    trainer.save_model()
    assert (tmp_path / "a" / "adapter_config.json").exists()
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model_dir), config)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    again = make_trainer(adapted, tmp_path / "b", ranked_rows, processing_class=tokenizer, max_steps=2, learning_rate=1e-2)
    before = weights(again).clone()
    again.train()
    assert not torch.equal(weights(again), before)


def test_a_prompt_learning_adapter_scores_the_same_tokens(tiny_model_dir, tmp_path, ranked_rows):
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    metrics = eval_metrics(tiny_model_dir, tmp_path / "a", ranked_rows, peft_config=config)
    plain = eval_metrics(tiny_model_dir, tmp_path / "b", ranked_rows)
    assert metrics["eval_completions/mean_length"] == plain["eval_completions/mean_length"]
    assert metrics["eval_logps/best"] < 0


def test_a_module_as_model_and_gradient_checkpointing(tiny_model_dir, tmp_path, ranked_rows):
    results = []
    for checkpointing in (False, True):
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        trainer = make_trainer(
            model,
            tmp_path / str(checkpointing),
            ranked_rows,
            processing_class=tokenizer,
            gradient_checkpointing=checkpointing,
            max_steps=2,
            learning_rate=1e-2,
        )
        trainer.train()
        results.append(weights(trainer))
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=0)


def test_a_tokenizer_without_padding_token(tiny_model_dir, tmp_path, ranked_rows):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.pad_token = None
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, processing_class=tokenizer)
    assert trainer.data_collator.pad_token_id == tokenizer.eos_token_id == trainer.model.config.pad_token_id


def test_bad_input_is_named_before_the_model_loads(tiny_model_dir, tmp_path, ranked_rows):
    missing = str(tmp_path / "no_such_model")
    bad_rows = Dataset.from_list([*ranked_rows, {**ranked_rows[0], "scores": [1.0]}])
    with pytest.raises(LoadError, match="`model`: there is no model folder"):
        make_trainer(missing, tmp_path, ranked_rows)
    with pytest.raises(LoadError, match=r"holds no config\.json or adapter_config\.json"):
        make_trainer(tmp_path, tmp_path / "out", ranked_rows)
    with pytest.raises(RowError, match="`train_dataset`, row 16, column `scores`"):
        make_trainer(tiny_model_dir, tmp_path, bad_rows)
    with pytest.raises(ConfigError, match="`train_dataset`: got None"):
        RRTFTrainer(str(tiny_model_dir), RRTFConfig(str(tmp_path), bf16=False))
    with pytest.raises(ConfigError, match="does not train vision models"):
        make_trainer(tiny_model_dir, tmp_path, [{**ranked_rows[0], "image": "x"}])
