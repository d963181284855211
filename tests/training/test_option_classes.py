"""Every option of TRL's `SFTConfig` and of transformers' `TrainingArguments` is honoured, refused by name, or without meaning.

An option that a new version brings is in none of the tables, and fails the first test until it is looked at.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from trl import SFTConfig

from tests.training.test_trainer import make_trainer, weights
from trl_rrtf import ConfigError, RRTFConfig
from trl_rrtf.training.config import _UNSUPPORTED, WITHOUT_MEANING

OPTIONS = {option.name: option for option in dataclasses.fields(SFTConfig) if option.init}
DOCS = (Path(__file__).parents[2] / "docs" / "trainer.md").read_text()

# Another value makes other weights.
MOVES_WEIGHTS = {
    "learning_rate": 3e-2,
    "weight_decay": 0.5,
    "adam_beta1": 0.5,
    "adam_beta2": 0.5,
    "adam_epsilon": 1e-2,
    "max_grad_norm": 1e-3,
    "num_train_epochs": 2,
    "max_steps": 1,
    "lr_scheduler_type": "constant",
    "lr_scheduler_kwargs": {"num_cycles": 3},
    "warmup_ratio": 0.5,
    "warmup_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "seed": 7,
    "data_seed": 7,
    "optim": "sgd",
    "adafactor": True,
    "neftune_noise_alpha": 5.0,
    "dataloader_drop_last": True,
    "train_sampling_strategy": "sequential",
    "shuffle_dataset": True,
    "bf16": True,
    "max_length": 40,
    "eos_token": "<|im_start|>",
}
# What else it needs to be seen.
WITH = {
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_restarts"},
    "bf16": {"use_cpu": True},
    "num_train_epochs": {"max_steps": -1},
    "dataloader_drop_last": {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 5},
}

# Seen to act by a test of its own.
SEEN = {
    "output_dir": "test_trainer",
    "chat_template_path": "test_train_stage",
    "model_init_kwargs": "below",
    "dataset_num_proc": "below",
    "pad_token": "test_refusals",
    "pad_to_multiple_of": "below",
    "activation_offloading": "test_config (refused on a CPU)",
    "accelerator_config": "test_config",
    "router_aux_loss_coef": "below",
    "gradient_checkpointing": "test_trainer",
    "per_device_eval_batch_size": "test_trainer",
    "eval_strategy": "test_callbacks",
    "eval_steps": "test_callbacks",
    "eval_on_start": "below",
    "eval_delay": "below",
    "logging_steps": "test_callbacks",
    "logging_strategy": "below",
    "logging_first_step": "below",
    "save_strategy": "test_several_processes",
    "save_steps": "test_train_stage",
    "save_total_limit": "below",
    "save_only_model": "test_train_stage",
    "load_best_model_at_end": "test_callbacks",
    "metric_for_best_model": "test_refusals",
    "greater_is_better": "test_callbacks",
    "resume_from_checkpoint": "test_train_stage",
    "dataloader_num_workers": "test_refusals",
    "use_cpu": "test_trainer",
    "push_to_hub": "test_hub_push",
    "hub_model_id": "test_hub_push",
    "hub_private_repo": "test_hub_push",
    "hub_token": "test_hub_push",
    "hub_revision": "test_hub_push",
    "report_to": "test_train_stage",
    "run_name": "test_train_stage",
    "disable_tqdm": "test_trainer",
    "fsdp": "test_several_processes",
    "average_tokens_across_devices": "test_config",
}

# `Trainer` and accelerate act on these outside of what RRTF overrides: devices, engines, loaders, logs, the Hub, precision.
OF_TRAINER = {
    # lines of transformers that no longer have them, or under another name
    "overwrite_output_dir", "no_cuda", "use_mps_device", "per_gpu_train_batch_size", "per_gpu_eval_batch_size", "torchdynamo",
    "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token", "logging_dir", "save_safetensors",
    "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap", "tpu_num_cores", "tpu_metrics_debug", "ray_scope",
    # logs
    "log_level", "log_level_replica", "log_on_each_node", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id", "skip_memory_metrics", "debug",
    # checkpoints and the Hub
    "save_on_each_node", "restore_callback_states_from_checkpoint", "ignore_data_skip", "enable_jit_checkpoint",
    "hub_strategy", "hub_always_push",
    # precision and speed
    "fp16", "bf16_full_eval", "fp16_full_eval", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode",
    "use_liger_kernel", "liger_kernel_config", "full_determinism", "auto_find_batch_size", "torch_empty_cache_steps",
    "gradient_checkpointing_kwargs", "activation_checkpointing", "activation_checkpointing_kwargs", "optim_target_modules",
    "use_cache", "trust_remote_code", "optim_args",
    # loaders
    "dataloader_prefetch_factor", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_in_order",
    "dataloader_multiprocessing_context",
    # several devices
    "local_rank", "ddp_backend", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_timeout",
    "ddp_static_graph", "fsdp_config", "deepspeed", "parallelism_config",
}  # fmt: skip

# Some of their values are honoured, and others refused.
SOME_VALUES = ("average_tokens_across_devices", "train_sampling_strategy")

HERE = sorted(set(MOVES_WEIGHTS) & set(OPTIONS))


def test_every_option_is_classified():
    tables = {"moves the weights": MOVES_WEIGHTS, "seen": SEEN, "of Trainer": OF_TRAINER}
    tables |= {"refused": _UNSUPPORTED, "without meaning": WITHOUT_MEANING}
    for name in OPTIONS:
        found = [table for table, names in tables.items() if name in names]
        if name in SOME_VALUES:
            continue
        assert len(found) == 1, f"`{name}` is in {found or 'no table'}: see what it does to ranked groups"


def test_refused_and_idle_options_are_in_the_documentation():
    assert [name for name in (*_UNSUPPORTED, *WITHOUT_MEANING) if f"`{name}" not in DOCS] == []


@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning")
@pytest.mark.parametrize("name", sorted(set(_UNSUPPORTED) & set(OPTIONS)))
def test_a_refused_option_says_what_to_do(tmp_path, name):
    default = _UNSUPPORTED[name][0][-1]
    other = {bool: lambda: not default, str: lambda: "another", float: lambda: 0.5, int: lambda: 3, list: lambda: ["inputs"]}
    value = other.get(type(default), lambda: ["labels"] if name == "label_names" else {"skip_prepare_dataset": True})()
    value = {"truncation_mode": "keep_end", "train_sampling_strategy": "group_by_length", "loss_type": "dft"}.get(name, value)
    value = True if name in ("eval_packing", "include_num_input_tokens_seen") else value
    value = False if name == "completion_only_loss" else value
    with pytest.raises(ConfigError, match=rf"`{name}=.*` is not supported by RRTF: [`\w]"):
        RRTFConfig(str(tmp_path), bf16=False, **{name: value})


BASE = {"learning_rate": 1e-2, "max_steps": 4, "per_device_train_batch_size": 4, "save_strategy": "no", "max_length": 512}


def trained(model, folder, rows, **options):
    trainer = make_trainer(model, folder, rows, **{**BASE, **options})
    trainer.train()
    return weights(trainer)


@pytest.fixture(scope="module")
def baselines():
    return {}


@pytest.mark.parametrize("name", HERE)
@pytest.mark.filterwarnings("ignore:.*(adafactor|warmup_ratio):FutureWarning")
def test_an_option_moves_the_weights(tiny_model_dir, tmp_path, ranked_rows, baselines, name):
    others = WITH.get(name, {})
    key = str(sorted(others.items()))
    if key not in baselines:
        baselines[key] = trained(tiny_model_dir, tmp_path / "base", ranked_rows, **others)
    moved = trained(tiny_model_dir, tmp_path / "moved", ranked_rows, **{**others, name: MOVES_WEIGHTS[name]})
    assert torch.isfinite(moved).all()
    assert (moved - baselines[key]).abs().max() > 1e-7


def steps_of(trainer, metric):
    return [entry["step"] for entry in trainer.state.log_history if metric in entry]


@pytest.mark.filterwarnings("ignore:mtime may not be reliable:UserWarning")
def test_evaluations_logs_and_checkpoints_come_when_they_are_asked_for(tiny_model_dir, tmp_path, ranked_rows):
    options = {"max_steps": 4, "logging_steps": 3, "logging_first_step": True, "eval_strategy": "steps", "eval_steps": 1}
    options |= {"eval_on_start": True, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    trainer = make_trainer(tiny_model_dir, tmp_path / "a", ranked_rows, ranked_rows, **options)
    trainer.train()
    assert steps_of(trainer, "loss/rank") == [1, 3]
    assert steps_of(trainer, "eval_loss/rank") == [0, 1, 2, 3, 4]
    assert [path.name for path in (tmp_path / "a").glob("checkpoint-*")] == ["checkpoint-4"]
    options = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 1, "eval_delay": 3, "logging_strategy": "no"}
    trainer = make_trainer(tiny_model_dir, tmp_path / "b", ranked_rows, ranked_rows, save_strategy="no", **options)
    trainer.train()
    assert steps_of(trainer, "eval_loss/rank") == [3, 4]
    assert steps_of(trainer, "loss/rank") == []


def test_the_model_and_its_rows_are_made_as_asked_for(tiny_model_dir, tmp_path, ranked_rows):
    options = {"model_init_kwargs": {"attn_implementation": "eager"}, "dataset_num_proc": 2, "pad_to_multiple_of": 64}
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, prefix_sharing=False, **options)
    assert trainer.model.config._attn_implementation == "eager"
    assert trainer.train_dataset["group_index"][:] == list(range(16))
    (part,) = trainer.data_collator([trainer.train_dataset[0]])["parts"]
    assert part["input_ids"].shape[1] % 64 == 0
    assert part["input_ids"].shape[1] > max(map(len, trainer.train_dataset[0]["completion_ids"]))
    with pytest.raises(ValueError, match="not a Mixture-of-Experts model"):
        make_trainer(tiny_model_dir, tmp_path / "b", ranked_rows, router_aux_loss_coef=0.5)


def test_another_end_token_ends_the_texts(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows, eos_token="<|im_start|>")
    number = AutoTokenizer.from_pretrained(tiny_model_dir).convert_tokens_to_ids("<|im_start|>")
    assert {ids[-1] for row in trainer.train_dataset for ids in row["completion_ids"]} == {number}
