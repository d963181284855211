"""The shared layout gives the log-probabilities and gradients of the padded one, on every proved architecture."""

from __future__ import annotations

import logging
import random

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.training.test_trainer import make_trainer, weights
from trl_rrtf import DataCollatorForRankedGroups
from trl_rrtf.training.collator import PADDING_BLOCK
from trl_rrtf.training.prefix_sharing import PROVED_MODEL_TYPES, attention_mask, attention_rule

WINDOW = 8
SIZES = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
LLAMA_LIKE = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": 0}
GPT_LIKE = {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}
ARCHITECTURES = {
    "llama": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": {**LLAMA_LIKE, "head_dim": 8},
    "gemma3_text": {
        **LLAMA_LIKE,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt2": GPT_LIKE,
    "gpt_bigcode": GPT_LIKE,
    "starcoder2": {**LLAMA_LIKE, "sliding_window": WINDOW},
    "mistral": {**LLAMA_LIKE, "sliding_window": WINDOW},
    "phi": LLAMA_LIKE,
    "phi3": {**LLAMA_LIKE, "sliding_window": WINDOW},
    "smollm3": LLAMA_LIKE,
    "granite": LLAMA_LIKE,
    "olmo2": LLAMA_LIKE,
}


def tiny_model(model_type, attn_implementation="sdpa", **sizes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**ARCHITECTURES.get(model_type, LLAMA_LIKE), **sizes})
    return AutoModelForCausalLM.from_config(config, attn_implementation=attn_implementation)


def tokenized_groups(sizes=(3, 1, 5), prompt=21, seed=0):
    """Prompts and candidates longer than the sliding window."""
    rng = random.Random(seed)

    def tokens(length):
        return rng.choices(range(3, 400), k=length)

    return [
        {
            "prompt_ids": tokens(prompt + number),
            "completion_ids": [tokens(rng.randint(1, 15)) for _ in range(size)],
            "scores": [3.25] + [float(rng.randint(0, 3)) for _ in range(1, size)],
            "sources": [1] + [0] * (size - 1),
            "group_index": number,
            "num_dropped": 0,
        }
        for number, size in enumerate(sizes)
    ]


def loss_and_gradients(trainer, batch):
    trainer.model.eval()  # no dropout
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}
    return loss.detach(), gradients


@pytest.fixture
def trainer_for(tiny_model_dir, tmp_path, ranked_rows):
    def make(model, **options):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        return make_trainer(model, tmp_path, ranked_rows[:2], processing_class=tokenizer, **options)

    return make


def test_every_proved_architecture_is_tested():
    assert set(ARCHITECTURES) == PROVED_MODEL_TYPES


@pytest.mark.parametrize("attn_implementation", ["sdpa_segments", "sdpa", "eager"])
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_loss_and_gradients_equal_those_of_padded_rows(trainer_for, model_type, attn_implementation):
    trainer = trainer_for(tiny_model(model_type, "eager" if attn_implementation == "eager" else "sdpa"))
    assert trainer.data_collator.prefix_sharing
    chosen = "eager" if attn_implementation == "eager" else "sdpa_segments"
    assert trainer.model.config._attn_implementation == chosen
    trainer.model.set_attn_implementation(attn_implementation)
    groups = tokenized_groups()
    padded_loss, padded = loss_and_gradients(trainer, DataCollatorForRankedGroups(0)(groups))
    assert padded_loss > 1.0
    for layout in ({}, {"row_token_budget": 160}, {"pad_to_multiple_of": 32}):
        shared_loss, shared = loss_and_gradients(trainer, DataCollatorForRankedGroups(0, prefix_sharing=True, **layout)(groups))
        torch.testing.assert_close(shared_loss, padded_loss, rtol=1e-6, atol=1e-5)
        for name, gradient in padded.items():
            torch.testing.assert_close(
                shared[name], gradient, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_layout_by_hand():
    group = {"prompt_ids": [10, 11, 12], "completion_ids": [[20, 21, 22], [30, 31]], "scores": [1.0, 0.0], "sources": [1, 0]}
    group |= {"group_index": 0, "num_dropped": 0}
    (part,) = DataCollatorForRankedGroups(0, prefix_sharing=True, pad_to_multiple_of=8)([group])["parts"]
    assert {name: values.tolist()[0] for name, values in part.items()} == {
        "input_ids": [10, 11, 12, 20, 21, 12, 30, 0],
        "position_ids": [0, 1, 2, 3, 4, 2, 3, 0],
        "labels": [-100, -100, 20, 21, 22, 30, 31, -100],
        "candidate_ids": [-1, -1, 0, 0, 0, 1, 1, -1],
        "block_ids": [0, 0, 0, 0, 0, 0, 0, PADDING_BLOCK],
        "segment_ids": [0, 0, 1, 1, 1, 2, 2, 0],
    }
    (padded,) = DataCollatorForRankedGroups(0)([group])["parts"]
    assert padded["input_ids"].tolist() == [[10, 11, 12, 20, 21], [10, 11, 12, 30, 0]]
    assert padded["labels"].tolist() == [[-100, -100, 20, 21, 22], [-100, -100, 30, 31, -100]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


def test_rows_and_parts_keep_to_their_budgets():
    groups = tokenized_groups(sizes=(2, 3, 4, 9), prompt=10)
    tokens = sum(len(group["prompt_ids"]) - 1 + sum(map(len, group["completion_ids"])) for group in groups)
    (packed,) = DataCollatorForRankedGroups(0, prefix_sharing=True, row_token_budget=10_000)(groups)["parts"]
    assert packed["input_ids"].shape == (1, tokens), "one row, no padding"
    for sharing in (False, True):
        parts = DataCollatorForRankedGroups(0, prefix_sharing=sharing, max_tokens_per_forward=64)(groups)["parts"]
        assert len(parts) > 2
        assert max(part["input_ids"].numel() for part in parts) <= 64
        labelled = torch.cat([part["candidate_ids"][part["labels"] != -100] for part in parts])
        lengths = [len(ids) for group in groups for ids in group["completion_ids"]]
        assert torch.bincount(labelled).tolist() == lengths


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")  # 2026-11-23: as is meant here
def test_the_rule_is_the_same_for_flex_attention():
    """On a CPU FlexAttention has no backward; its forward, uncompiled, must agree with SDPA under the same rule."""
    from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

    (part,) = DataCollatorForRankedGroups(0, prefix_sharing=True, pad_to_multiple_of=128, row_token_budget=128)(
        tokenized_groups(sizes=(2, 3))
    )["parts"]
    ids = (part["block_ids"], part["segment_ids"], part["position_ids"])
    rows, length = part["block_ids"].shape
    config = AutoConfig.for_model("llama", **LLAMA_LIKE)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(rows, 2, length, 16, generator=generator) for _ in range(3))
    for window in (None, WINDOW):
        rule = attention_rule(*ids, window)
        mask = create_mask(rule, rows, None, length, length, device="cpu")
        config._attn_implementation, config.sliding_window = "sdpa", window
        assert torch.equal(attention_mask(config, part, torch.float32), mask)
        block_mask = create_block_mask(rule, rows, None, length, length, device="cpu")
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        with torch.no_grad():
            torch.testing.assert_close(flex_attention(q, k, v, block_mask=block_mask), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "sizes", "reason"),
    [
        ("mamba", {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 1}, "carry a state along the row"),
        ("stablelm", {}, "not proved for `stablelm`"),
    ],
)
def test_models_that_cannot_share_fall_back_with_the_reason(trainer_for, caplog, model_type, sizes, reason):
    with caplog.at_level(logging.WARNING):
        trainer = trainer_for(tiny_model(model_type, attn_implementation="eager" if sizes else "sdpa", **sizes), max_steps=1)
    assert reason in caplog.text
    assert not trainer.data_collator.prefix_sharing
    assert trainer.train().training_loss > 0


def test_an_architecture_that_is_not_proved_is_tried_where_it_is_wanted(trainer_for, caplog):
    assert trainer_for(tiny_model("stablelm"), prefix_sharing=True).data_collator.prefix_sharing
    assert "prefix_sharing" not in caplog.text


def test_an_architecture_that_differs_is_refused_although_it_is_wanted(trainer_for, caplog, monkeypatch):
    """A stand-in for a model whose attention ignores the mask."""
    monkeypatch.setattr("trl_rrtf.training.prefix_sharing.attention_mask", lambda config, part, dtype: None)
    trainer = trainer_for(tiny_model("stablelm"), prefix_sharing=True)
    assert not trainer.data_collator.prefix_sharing
    assert "the two layouts differ by" in caplog.text


def test_off_is_off(trainer_for):
    assert not trainer_for(tiny_model("llama"), prefix_sharing=False).data_collator.prefix_sharing


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_passes_give_the_update_of_one(tiny_model_dir, tmp_path, ranked_rows, sharing, checkpointing):
    results = []
    for budget in (None, 120):
        trainer = make_trainer(
            tiny_model_dir,
            tmp_path / str(budget),
            ranked_rows,
            prefix_sharing=sharing,
            max_tokens_per_forward=budget,
            gradient_checkpointing=checkpointing,
            optim="sgd",
            learning_rate=0.5,
            max_grad_norm=0.0,
            max_steps=2,
            logging_steps=1,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
        )
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss/rank" in entry]
        results.append((weights(trainer), [entry["loss"] for entry in logs], [entry["logps/best"] for entry in logs]))
    (expected, *expected_logs), (got, *got_logs) = results
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)
    assert got_logs[0] == pytest.approx(expected_logs[0], abs=2e-4)
    assert got_logs[1] == pytest.approx(expected_logs[1], abs=1e-5)
    initial = weights(make_trainer(tiny_model_dir, tmp_path / "initial", ranked_rows))
    assert (expected - initial).abs().max() > 1e-3


def test_two_passes_see_the_same_dropout():
    from contextlib import nullcontext

    from trl_rrtf.training.two_passes import loss_in_two_passes

    weight = torch.ones(4, 100, requires_grad=True)
    seen = {0: [], 1: []}

    def log_likelihoods_of(part):
        dropped = torch.nn.functional.dropout(weight[2 * part : 2 * part + 2], 0.5)
        seen[part].append(dropped.detach())
        values = torch.zeros(4)
        return values.index_add(0, torch.tensor([2 * part, 2 * part + 1]), dropped.sum(dim=1))

    loss = loss_in_two_passes([0, 1], log_likelihoods_of, lambda values: (values**2).sum(), torch.Tensor.backward, nullcontext)
    loss.backward()
    for first, second in seen.values():
        assert torch.equal(first, second)
    masks = torch.cat([seen[0][0], seen[1][0]])
    torch.testing.assert_close(weight.grad, 2 * masks.sum(dim=1, keepdim=True) * masks)
    assert loss.item() == pytest.approx((masks.sum(dim=1) ** 2).sum().item())


def test_only_completions_reach_the_lm_head(trainer_for):
    trainer = trainer_for(tiny_model("llama"))
    seen = []
    from trl_rrtf.training import _trl

    original = _trl.ScoredPositions.__call__

    def spy(self, module, inputs, output):
        output = original(self, module, inputs, output)
        seen.append(output.last_hidden_state.shape)
        return output

    batch = trainer.data_collator(tokenized_groups())
    trainer._scored_positions.__class__ = type("Spy", (_trl.ScoredPositions,), {"__call__": spy})
    trainer.compute_loss(trainer.model, batch)
    completion_tokens = sum(len(ids) for group in tokenized_groups() for ids in group["completion_ids"])
    assert seen == [(1, completion_tokens, 32)]
    assert transformers.__version__
