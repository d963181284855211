"""`RRTFConfig` refuses what it cannot honour and says what to do."""

from __future__ import annotations

import inspect

import pytest
from trl import ModelConfig, TrlParser

from trl_rrtf import ConfigError, RRTFConfig
from trl_rrtf.training.losses import LOSS_OPTIONS, RANK_LOSSES
from trl_rrtf.training.options import RRTFOptions


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
        ("include_for_metrics", ["inputs"]),
        ("eval_use_gather_object", True),
        ("label_names", ["labels"]),
        ("length_column_name", "size"),
        ("dataset_text_field", "content"),
        ("packing_strategy", "wrapped"),
        ("include_num_input_tokens_seen", True),
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
        ("pair_scope", "some"),
        ("margin_scaling", "length"),
        ("beta", 0.0),
        ("rank_margin", -0.1),
        ("length_normalization", float("nan")),
        ("tie_bonus", -1.0),
        ("best_logp_penalty", -1.0),
        ("row_token_budget", 0),
        ("max_tokens_per_forward", 0),
        ("sft_weight", float("inf")),
    ],
)
def test_values_out_of_range_are_named(tmp_path, option, value):
    with pytest.raises(ConfigError, match=f"`{option}`: expected .*got"):
        RRTFConfig(str(tmp_path), bf16=False, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("bf16", "no"),
        ("max_steps", "many"),
        ("gradient_checkpointing", "false"),
        ("use_reference_model", "no"),
        ("output_dir", 5),
    ],
)
def test_values_of_a_wrong_type_are_named(tmp_path, option, value):
    """Also of TRL's options; a text such as "no" would count as true."""
    with pytest.raises(ConfigError, match=f"`{option}`: expected .*got"):
        RRTFConfig(**{"output_dir": str(tmp_path), "bf16": False, option: value})


def test_numbers_as_text_are_numbers(tmp_path):
    """YAML reads 2e-4 as text."""
    config = RRTFConfig(str(tmp_path), bf16=False, learning_rate="2e-4", max_steps="3", tie_bonus="1e-1")
    assert (config.learning_rate, config.max_steps, config.tie_bonus) == (2e-4, 3, 0.1)


def test_trls_parser_takes_it_as_in_trls_scripts(tmp_path):
    arguments = ["--output_dir", str(tmp_path), "--rank_loss", "rrhf", "--bf16", "false", "--model_name_or_path", "m"]
    config, model = TrlParser((RRTFConfig, ModelConfig)).parse_args_and_config(arguments)
    assert (config.rank_loss, model.model_name_or_path) == ("rrhf", "m")


def test_nothing_to_learn_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="both 0"):
        RRTFConfig(str(tmp_path), bf16=False, rank_weight=0.0, sft_weight=0.0)


def test_without_fine_tuning_groups_without_pairs_are_dropped(tmp_path):
    assert RRTFConfig(str(tmp_path), bf16=False, sft_weight=0.0).groups_without_pairs == "drop"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 2.0}, r"`beta=2.0` says nothing to `rank_loss='rrtf'`; .*`logistic`, `plackett_luce`, `lambda`"),
        ({"rank_loss": "rrhf", "rank_margin": 1.0}, "`rank_margin=1.0` says nothing"),
        ({"rank_loss": "hinge", "margin_scaling": "rank"}, "scales a `rank_margin` of 0"),
        ({"rank_loss": "plackett_luce", "pair_scope": "all"}, "reads the whole order"),
        ({"prefix_sharing": False, "row_token_budget": 512}, "`prefix_sharing` is off"),
        ({"rank_weight": 0.0, "use_reference_model": True}, "`rank_weight` is 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        RRTFConfig(str(tmp_path), bf16=False, **options)


def test_the_choices_the_help_and_the_errors_come_from_the_table(tmp_path):
    help_text = RRTFOptions.__dataclass_fields__["rank_loss"].metadata["help"]
    with pytest.raises(ConfigError) as error:
        RRTFConfig(str(tmp_path), bf16=False, rank_loss="dpo")
    for name, loss in RANK_LOSSES.items():
        assert f"`{name}`: {loss.summary}" in help_text
        assert name in str(error.value)
        taken = list(inspect.signature(loss.function).parameters)[5:]
        assert taken == list(loss.options), name
    assert set(LOSS_OPTIONS) == {option for loss in RANK_LOSSES.values() for option in loss.options}


def test_activations_are_not_offloaded_from_a_cpu(tmp_path):
    with pytest.raises(ConfigError, match=r"`activation_offloading` moves activations from an accelerator.*there is none"):
        RRTFConfig(str(tmp_path), bf16=False, activation_offloading=True)


def test_groups_are_not_cut_apart_by_accelerate(tmp_path):
    assert RRTFConfig(str(tmp_path), bf16=False).accelerator_config.dispatch_batches is False
    with pytest.raises(ConfigError, match="would cut groups apart"):
        RRTFConfig(str(tmp_path), bf16=False, accelerator_config={"dispatch_batches": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1}, "`learning_rate`: expected at least 0, got -1"),
        ({"learning_rate": float("nan")}, "`learning_rate`: expected at least 0, got nan"),
        ({"per_device_train_batch_size": 0}, "`per_device_train_batch_size`: expected at least 1, got 0"),
        ({"max_length": -5}, "`max_length`: expected at least 1, got -5"),
        ({"model_init_kwargs": "foo"}, "`model_init_kwargs`: expected keys with values, got 'foo'"),
    ],
)
def test_numbers_that_no_training_can_have_are_refused_at_once(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        RRTFConfig(str(tmp_path), bf16=False, use_cpu=True, **options)
