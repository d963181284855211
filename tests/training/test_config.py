"""`RRTFConfig` refuses what it cannot honour and says what to do."""

from __future__ import annotations

import pytest

from trl_rrtf import ConfigError, RRTFConfig


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("packing", True),
        ("eval_packing", True),
        ("padding_free", True),
        ("assistant_only_loss", True),
        ("completion_only_loss", False),
        ("loss_type", "dft"),
        ("label_smoothing_factor", 0.1),
        ("dataset_kwargs", {"skip_prepare_dataset": True}),
        ("average_tokens_across_devices", False),
        ("remove_unused_columns", True),
        ("batch_eval_metrics", True),
    ],
)
def test_options_that_rrtf_cannot_honour_are_refused(tmp_path, option, value):
    with pytest.raises(ConfigError, match=f"`{option}=.*is not supported by RRTF: "):
        RRTFConfig(str(tmp_path), bf16=False, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rank_loss", "dpo"),
        ("sft_reduction", "max"),
        ("groups_without_pairs", "keep"),
        ("rank_weight", -1.0),
        ("sft_weight", float("inf")),
    ],
)
def test_values_out_of_range_are_named(tmp_path, option, value):
    with pytest.raises(ConfigError, match=f"`{option}`: expected .*got"):
        RRTFConfig(str(tmp_path), bf16=False, **{option: value})


def test_nothing_to_learn_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="both 0"):
        RRTFConfig(str(tmp_path), bf16=False, rank_weight=0.0, sft_weight=0.0)


def test_without_fine_tuning_groups_without_pairs_are_dropped(tmp_path):
    assert RRTFConfig(str(tmp_path), bf16=False, sft_weight=0.0).groups_without_pairs == "drop"
