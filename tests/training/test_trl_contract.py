"""What `training/_trl.py` relies on beyond TRL's documented surface: fails with a clear name when a TRL release moves it."""

from __future__ import annotations

import inspect

from trl import SFTTrainer

from trl_rrtf.training._trl import SFTTrainerHooks


def test_prepare_dataset_has_the_signature_that_is_overridden():
    theirs = list(inspect.signature(SFTTrainer._prepare_dataset).parameters)
    ours = list(inspect.signature(SFTTrainerHooks._prepare_dataset).parameters)
    assert ours == theirs


def test_the_fused_head_is_called_as_trl_calls_it():
    source = inspect.getsource(SFTTrainer.compute_loss)
    assert "fused_lm_head=True" in source
    assert "outputs.log_probs" in source


def test_class_attributes_exist():
    for name in ("_tag_names", "_name", "_paper", "loss_is_scaled_for_ga"):
        assert hasattr(SFTTrainer, name), name
    assert "self.aux_loss_enabled" in inspect.getsource(SFTTrainer.__init__)
