"""The settings that onnxruntime-genai wants beside a graph, so that its engine runs the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PretrainedConfig

from trl_rrtf.export.weights import WeightedGraph
from trl_rrtf.models.onnx_runtime import GENAI_FILE, MODEL_FILE
from trl_rrtf.rows.files import write_json

_SEARCH = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "min_length")
"""Settings of `generate` that genai has under the same names."""


def write_genai_config(
    folder: Path,
    graph: WeightedGraph,
    config: PretrainedConfig,
    settings: GenerationConfig | None,
    *,
    longest: int | None,
    device: str,
) -> str:
    """Writes `genai_config.json`, where genai can run the graph.

    Args:
        folder: The exported folder.
        graph: The graph.
        config: The model's configuration.
        settings: The model's settings of `generate`.
        longest: Longest text that the graph is right for, in tokens; None if there is no limit.
        device: What the graph is for, `cpu` or `cuda`.

    Returns:
        Why there is no such file; empty where there is.
    """
    config = config.get_text_config()
    inputs = {value.name: value for value in graph.proto.graph.input}
    past = [value for name, value in inputs.items() if name.startswith("past_key_values.")]
    shapes = {tuple(value.type.tensor_type.shape.dim[axis].dim_value for axis in (1, 3)) for value in past}
    end = getattr(settings, "eos_token_id", None) or config.eos_token_id
    if len(shapes) != 1:
        return "its layers have caches of different shapes"
    if longest is None:
        return "the model has no longest text, and genai wants one"
    if end is None:
        return "the model has no token that ends a text"
    [(heads, head_size)] = shapes
    first_end = end[0] if isinstance(end, list) else end
    padding = getattr(settings, "pad_token_id", None)
    layers = len(past) // 2
    named = {name: name for name in ("input_ids", "attention_mask", "position_ids") if name in inputs}
    provider: list[dict[str, Any]] = [{"cuda": {}}] if device == "cuda" else []
    model: dict[str, Any] = {
        "type": "decoder",  # genai's word for any language model of this form
        "bos_token_id": first_end if config.bos_token_id is None else config.bos_token_id,  # it wants a number
        "eos_token_id": end,
        "pad_token_id": first_end if padding is None else padding,
        "context_length": longest,
        "vocab_size": config.vocab_size,
        "decoder": {
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": provider},
            "filename": MODEL_FILE,
            "hidden_size": config.hidden_size,
            "head_size": head_size,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": heads,
            "num_hidden_layers": layers,
            "inputs": {
                **named,
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
        },
    }
    shipped = settings.to_diff_dict() if settings is not None else {}
    search = {name: shipped[name] for name in _SEARCH if shipped.get(name) is not None}
    search |= {"max_length": longest, "num_beams": 1, "past_present_share_buffer": _may_share_buffer(graph)}
    write_json(folder / GENAI_FILE, {"model": model, "search": search})
    return ""


def _may_share_buffer(graph: WeightedGraph) -> bool:
    """Whether one buffer of the longest text's size may hold the cache of all steps.

    Fused attention knows how much of it is filled; whatever else looks at the cache takes its size for the length of the text.
    """
    takers = {node.op_type for node in graph.proto.graph.node for name in node.input if name.startswith("past_key_values.")}
    return takers == {"GroupQueryAttention"}
