"""What transformers calls a model's key-value cache."""

from __future__ import annotations

import inspect

from transformers import GenerationMixin

_ARGUMENTS = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters

CACHE = "cache" if "cache" in _ARGUMENTS else "past_key_values"
"""Its name as an argument of `forward` and `generate`, and in what they return: `cache` from transformers 5.24 on."""
