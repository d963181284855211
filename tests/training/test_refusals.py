"""What the trainer refuses by name before or instead of going wrong, and options of TRL that it takes as TRL does."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from datasets import Dataset, IterableDataset, concatenate_datasets
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from tests.conftest import ranked_row
from tests.training.test_trainer import make_trainer, weights
from trl_rrtf import ConfigError, DataCollatorForRankedGroups, RowError, RRTFConfig, RRTFTrainer
from trl_rrtf.training.ranked_dataset import check_rows, read_ranked_groups


def scored(*scores, **columns):
    return {"prompt": "p", "completions": [f"c{i}" for i in range(len(scores))], "scores": [*scores], **columns}


# --- Streams and joined sets ------------------------------------------------------------------------------------------------


def rows_of(shards):
    for shard in shards:
        yield from shard


@pytest.mark.parametrize("workers", [0, 2])
def test_every_group_of_a_stream_counts_whatever_its_shards_and_workers(tiny_model_dir, tmp_path, ranked_rows, workers):
    whole = make_trainer(tiny_model_dir, tmp_path / "whole", ranked_rows, ranked_rows).evaluate()
    parts = [ranked_rows[:9], ranked_rows[9:12], ranked_rows[12:]]
    stream = IterableDataset.from_generator(rows_of, gen_kwargs={"shards": parts})
    trainer = make_trainer(tiny_model_dir, tmp_path / "stream", ranked_rows, stream, dataloader_num_workers=workers)
    metrics = trainer.evaluate()
    names = [name for name in whole if "/" in name or name == "eval_loss"]
    assert {name: metrics[name] for name in names} == pytest.approx({name: whole[name] for name in names}, abs=1e-5)


def test_tokenised_sets_that_were_joined_count_each_group(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows)
    whole = trainer.evaluate(Dataset.from_list(ranked_rows))
    halves = [
        trainer.prepare_groups(Dataset.from_list(rows), trainer.processing_class, trainer.args, "half")
        for rows in (ranked_rows[:8], ranked_rows[8:])
    ]
    joined = concatenate_datasets(halves)
    assert trainer.evaluate(joined)["eval_loss"] == pytest.approx(whole["eval_loss"], abs=1e-5)
    numbered = trainer.prepare_groups(joined, trainer.processing_class, trainer.args, "joined")
    assert numbered["group_index"][:] == list(range(16))


def test_a_stream_that_does_not_fill_its_last_update_is_trained_on_to_its_end(tiny_model_dir, tmp_path, ranked_rows):
    """Five batches in updates of two: the last update has one batch."""
    stream = IterableDataset.from_generator(rows_of, gen_kwargs={"shards": [ranked_rows[:10]]})
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 3, "logging_steps": 1}
    options |= {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    trainer = make_trainer(tiny_model_dir, tmp_path / "a", stream, **options)
    trainer.train()
    del options["max_steps"]
    options["num_train_epochs"] = 1
    whole = make_trainer(tiny_model_dir, tmp_path / "b", Dataset.from_list(ranked_rows[:10]), **options)
    whole._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(range(10))
    whole.train()
    torch.testing.assert_close(weights(trainer), weights(whole), atol=1e-6, rtol=0)


def test_nothing_left_of_a_stream_to_evaluate_is_told(tiny_model_dir, tmp_path, ranked_rows):
    stream = IterableDataset.from_generator(rows_of, gen_kwargs={"shards": [[scored(1.0, 1.0)]]})
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, groups_without_pairs="drop")
    with pytest.raises(RowError, match="eval: no group is left; raise `max_length` or check the scores"):
        trainer.evaluate(stream)


# --- Numbers that are none --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "tie_bonus", "message"),
    [
        (scored(1.0, 1e39), 0.0, r"column `scores\[1\]`: expected a number that float32 can hold, got 1e\+39"),
        (
            scored(2.0**24, 2.0**24 + 1),
            0.0,
            r"column `scores\[1\]`: float32 cannot tell 16777217.0 from 16777216.0 of `scores\[0\]`",
        ),
        (scored(1e-50, 0.0), 0.0, r"column `scores\[1\]`: float32 cannot tell 0.0 from 1e-50"),
        (scored(2.0**24, 2.0**24, sources=["teacher", "student"]), 0.5, "float32 cannot tell .* with `tie_bonus`"),
    ],
)
def test_scores_that_float32_loses_are_named_by_row(tmp_path, row, tie_bonus, message):
    dataset = Dataset.from_list([scored(1.0, 0.0, sources=["teacher", "student"]), row])
    with pytest.raises(RowError, match=f"`train_dataset`, row 1, {message}" if not tie_bonus else message):
        check_rows(dataset, "train_dataset", tie_bonus)
    dataset.to_json(tmp_path / "r.jsonl")
    with pytest.raises(RowError, match="line 2"):
        read_ranked_groups(str(tmp_path / "r.jsonl"), tie_bonus)


def test_equal_scores_and_the_rounding_of_sums_are_ties():
    check_rows(Dataset.from_list([scored(0.1 + 0.2, 0.3), scored(1.0, 1.0), scored(1e30, -1e30)]), "train_dataset")


def test_a_loss_that_is_no_number_stops_the_training_and_names_its_groups(tiny_model_dir, tmp_path, ranked_rows):
    ranked_rows[5] |= {"completions": ["def", "return 7"], "scores": [3e38, -3e38], "sources": ["teacher", "student"]}
    ranked_rows[5]["completions"] = ["return 7 + - + - if x:", "def f(a, b):\n    return "]
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, per_device_train_batch_size=16, max_steps=1, rank_weight=1e3)
    with pytest.raises(ConfigError, match=r"`train_dataset`: the loss of update 1 is (nan|inf), because of the groups 5 \(row"):
        trainer.train()


def test_weights_that_are_broken_are_told_as_such(tiny_model_dir, tmp_path, ranked_rows):
    class Break(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            next(model.parameters()).data.fill_(float("nan"))

    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, max_steps=3)
    trainer.add_callback(Break())
    with pytest.raises(ConfigError, match=r"the loss of update 2 is nan, .*not finite for any candidate: .*`learning_rate`"):
        trainer.train()


# --- Metrics ----------------------------------------------------------------------------------------------------------------


def test_rewards_are_relative_to_the_reference_as_trls(tiny_model_dir, tmp_path, ranked_rows):
    """`ranking/accuracy` is of the model alone; TRL's `rewards/accuracies` of what is optimised."""
    options = {"rank_loss": "logistic", "beta": 0.5, "use_reference_model": True, "length_normalization": 0.0}
    options |= {"pair_scope": "all", "learning_rate": 2e-2, "max_steps": 3, "logging_steps": 1}
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, ranked_rows, **options)
    start = trainer.evaluate()
    assert start["eval_rewards/accuracies"] == start["eval_rewards/margins"] == 0.0
    assert start["eval_ranking/accuracy"] > 0.2
    before = trainer.log_likelihoods([*trainer.eval_dataset])
    trainer.train()
    metrics = trainer.evaluate()
    gains = 0.5 * (trainer.log_likelihoods([*trainer.eval_dataset]) - before)
    margins, start_of_group = [], 0
    for row in ranked_rows:
        of_group = gains[start_of_group : start_of_group + len(row["scores"])]
        start_of_group += len(row["scores"])
        for i, score in enumerate(row["scores"]):
            margins += [float(of_group[i] - of_group[j]) for j, other in enumerate(row["scores"]) if score > other]
    assert metrics["eval_rewards/accuracies"] == pytest.approx(sum(margin > 0 for margin in margins) / len(margins))
    assert metrics["eval_rewards/margins"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)
    assert metrics["eval_rewards/accuracies"] != metrics["eval_ranking/accuracy"]
    assert "rewards/accuracies" in {name for entry in trainer.state.log_history for name in entry}


def test_without_a_reference_there_are_no_rewards(tiny_model_dir, tmp_path, ranked_rows):
    metrics = make_trainer(tiny_model_dir, tmp_path, ranked_rows, ranked_rows).evaluate()
    assert not [name for name in metrics if "rewards/" in name]


def test_predict_takes_rows(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, ranked_rows)
    output = trainer.predict(Dataset.from_list(ranked_rows))
    assert output.predictions is None
    assert output.metrics["test_loss"] == pytest.approx(trainer.evaluate()["eval_loss"])
    with pytest.raises(RowError, match="`test_dataset`, row 0, column `scores`"):
        trainer.predict(Dataset.from_list([{**ranked_rows[0], "scores": [1.0]}]))


BEST = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 1}


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("ranking/accuracy", "is a mean over ordered pairs, and no group of `eval_dataset` has one; choose `loss`"),
        ("eval_ranking/margin", "is a mean over ordered pairs, and no group of `eval_dataset` has one"),
        ("rewards/accuracies", "needs `use_reference_model`; choose `ranking/accuracy`"),
    ],
)
def test_a_best_metric_that_cannot_be_is_refused_before_training(tiny_model_dir, tmp_path, ranked_rows, metric, message):
    ties = [scored(1.0, 1.0)] * 2
    with pytest.raises(ConfigError, match=f"`metric_for_best_model`: `{metric}` {message}"):
        make_trainer(tiny_model_dir, tmp_path, ranked_rows, ties, metric_for_best_model=metric, **BEST)


def test_a_best_metric_that_nothing_logs_is_told_with_those_that_are(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path / "a", ranked_rows, ranked_rows, metric_for_best_model="acc", **BEST)
    with pytest.raises(ConfigError, match=r"`metric_for_best_model`: `acc` is not among the metrics; choose one of .*loss"):
        trainer.train()
    sets = {"one": Dataset.from_list(ranked_rows), "two": Dataset.from_list(ranked_rows[:3])}
    best = {**BEST, "metric_for_best_model": "two_ranking/accuracy", "greater_is_better": True}
    trainer = make_trainer(tiny_model_dir, tmp_path / "b", ranked_rows, sets, **best)
    trainer.train()
    assert trainer.state.best_metric is not None


# --- Options of TRL ---------------------------------------------------------------------------------------------------------


def test_rows_are_shuffled_as_trl_does(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, ranked_rows, shuffle_dataset=True, seed=3)
    expected = Dataset.from_list([{"i": i} for i in range(16)]).shuffle(seed=3)["i"][:]
    assert trainer.train_dataset["group_index"][:] == trainer.eval_dataset["group_index"][:] == expected != list(range(16))


@pytest.mark.filterwarnings("ignore:`pad_token` is deprecated:FutureWarning")
def test_the_padding_token_is_the_one_that_is_given(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, pad_token="<|im_start|>")
    number = trainer.processing_class.convert_tokens_to_ids("<|im_start|>")
    assert trainer.data_collator.pad_token_id == trainer.processing_class.pad_token_id == number
    assert trainer.model.config.pad_token_id == trainer.model.generation_config.pad_token_id == number


@pytest.mark.filterwarnings("ignore:`pad_token` is deprecated:FutureWarning")
def test_a_padding_token_that_is_not_there_is_refused(tiny_model_dir, tmp_path, ranked_rows):
    with pytest.raises(ConfigError, match="`pad_token`: the tokenizer has no token '<nope>'"):
        make_trainer(tiny_model_dir, tmp_path, ranked_rows, pad_token="<nope>")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="`pad_token`: got nothing, and the tokenizer has neither padding nor end token"):
        make_trainer(tiny_model_dir, tmp_path, ranked_rows, processing_class=tokenizer)


@pytest.mark.filterwarnings("ignore:`pad_token` is deprecated:FutureWarning")
def test_a_collator_with_another_padding_token_is_refused(tiny_model_dir, tmp_path, ranked_rows):
    with pytest.raises(ConfigError, match=r"`pad_token`: '<\|im_start\|>' has the number 1, and `data_collator` pads with 0"):
        make_trainer(
            tiny_model_dir, tmp_path, ranked_rows, pad_token="<|im_start|>", data_collator=DataCollatorForRankedGroups(0)
        )


@pytest.mark.parametrize("as_text", [True, False])
def test_tokens_to_train_on_tied_embeddings_are_refused(tiny_model_dir, tmp_path, ranked_rows, as_text):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", trainable_token_indices=[5])
    model = tiny_model_dir if as_text else AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with pytest.raises(ConfigError, match=r"`peft_config.trainable_token_indices`: the embeddings of this model"):
        make_trainer(model, tmp_path, ranked_rows, peft_config=config)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("compute_metrics", "a callback (`on_evaluate`)"),
        ("compute_loss_func", "`rank_loss`"),
        ("preprocess_logits_for_metrics", "keeps no logits"),
        ("formatting_func", "`Dataset.map`"),
        ("model_init", "give `model`"),
        ("tokenizer", "`processing_class`"),
    ],
)
def test_arguments_of_other_trainers_are_refused_with_what_to_do(tiny_model_dir, tmp_path, name, advice):
    args, dataset = RRTFConfig(str(tmp_path), bf16=False), Dataset.from_list([ranked_row(2)])
    with pytest.raises(ConfigError, match=f"`{name}` is not supported by RRTF: .*{re.escape(advice)}"):
        RRTFTrainer(str(tiny_model_dir), args, train_dataset=dataset, **{name: print})
    RRTFTrainer(str(tiny_model_dir), copy.copy(args), train_dataset=dataset, **{name: None})
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        RRTFTrainer(str(tiny_model_dir), args, train_dataset=dataset, nonsense=1)
