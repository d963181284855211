"""fp16 by construction: run by ONNX's reference evaluator, which fuses nothing and computes each node in the type it has."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.export.test_export import ARCHITECTURES
from trl_rrtf import OutputError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx.reference import ReferenceEvaluator  # noqa: E402

from trl_rrtf.export import half_precision  # noqa: E402
from trl_rrtf.export.graph import export_graph  # noqa: E402
from trl_rrtf.export.weights import WeightedGraph  # noqa: E402

FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2")
TO_RESIDUAL = ("embed_tokens", "wte", "o_proj", "down_proj", "c_proj", "post_attention_layernorm", "post_feedforward_layernorm")
POSITIONS = 3000


def loud_model(model_type):
    """A tiny model whose norms get values far above 256, and that knows 3,000 positions."""
    torch.manual_seed(0)
    sizes = {**ARCHITECTURES[model_type], "max_position_embeddings": POSITIONS, "n_positions": POSITIONS}
    if model_type == "gpt2":
        del sizes["max_position_embeddings"]
    else:
        del sizes["n_positions"]
        sizes |= {"sliding_window": 64} if "sliding_window" in sizes else {}
    config = AutoConfig.for_model(model_type, **sizes, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None)
    model = AutoModelForCausalLM.from_config(config).eval()
    has_post_norms = model_type in ("gemma2", "gemma3_text")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "post_" in name and has_post_norms:
                parameter.fill_(700.0)
            elif "post_" not in name and any(part in name for part in TO_RESIDUAL):
                parameter.mul_(700.0)
    return model


def exported(model, folder):
    return export_graph(model, folder, fused=False)[0]


def run(graph, ids, positions):
    """Logits of the reference evaluator."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.array(value), name) for name, value in graph.weights.items())
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": positions}
    for value in proto.graph.input:
        if value.name.startswith("past_key_values"):
            _, heads, _, width = (size.dim_value for size in value.type.tensor_type.shape.dim)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feed[value.name] = np.zeros((len(ids), heads, 0, width), dtype=dtype)
    with np.errstate(all="ignore"):  # overflow is what a wrong graph is found by
        return ReferenceEvaluator(proto).run(["logits"], feed)[0].astype(np.float32)


def agreement(model, graph):
    """With PyTorch in float32, at positions 2,936 to 2,999."""
    ids = np.random.default_rng(0).integers(1, 400, (8, 64))
    positions = np.arange(POSITIONS - 64, POSITIONS)[None].repeat(8, axis=0)
    with torch.no_grad():
        outputs = model(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.ones(8, 64, dtype=torch.long),
            position_ids=torch.from_numpy(positions),
            output_hidden_states=True,
        )
    assert all(state.abs().amax() > 256 for state in outputs.hidden_states[:-1])  # the last one is normalised
    return (run(graph, ids, positions).argmax(-1) == outputs.logits.numpy().argmax(-1)).mean()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_norms_and_positions_are_right_without_any_fusion(model_type, tmp_path):
    model = loud_model(model_type)
    graph = exported(model, tmp_path)
    half_precision.to_half(graph)
    types = half_precision.value_types(graph)
    kept = {node.op_type for node in graph.proto.graph.node if types.get(node.output[0]) == onnx.TensorProto.FLOAT}
    expected = {"Softmax"} | ({"LayerNormalization"} if model_type == "gpt2" else {"ReduceMean", "Pow", "Sin", "Cos"})
    assert expected <= kept
    products = [node for node in graph.proto.graph.node if node.op_type in ("MatMul", "Gemm")]
    halves = [node for node in products if types[node.output[0]] == onnx.TensorProto.FLOAT16]
    assert len(products) - len(halves) <= 2  # of positions and frequencies, one per kind of layer
    assert agreement(model, graph) >= 0.99


def test_everything_in_half_precision_is_wrong_and_found(tmp_path, monkeypatch):
    """What the conversion is for: without it the test above sees the difference, and the export's own check names the node."""
    model = loud_model("llama")
    graph = exported(model, tmp_path)
    monkeypatch.setattr(half_precision._Flow, "float32_nodes", lambda self: set())
    with pytest.raises(OutputError, match=r"the fp16 graph computes `.*` \((Cos|Sin|Pow)\) in half precision \(its input `"):
        half_precision.to_half(graph)
    assert agreement(model, graph) < 0.9


def test_a_cube_stays_in_float32_up_to_the_tanh():
    """GELU's: the cube of 41 is infinite in half precision."""
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Pow", ["x", "three"], ["cube"]),
        onnx.helper.make_node("Mul", ["cube", "factor"], ["scaled"]),
        onnx.helper.make_node("Add", ["scaled", "x"], ["sum"]),
        onnx.helper.make_node("Tanh", ["sum"], ["bounded"]),
        onnx.helper.make_node("Mul", ["bounded", "x"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array(number, dtype=np.float32), name)
        for name, number in (("three", 3), ("factor", 1e-4))
    ]
    inputs, outputs = ([value(name, onnx.TensorProto.FLOAT, ["n"])] for name in "xy")
    proto = onnx.helper.make_model(onnx.helper.make_graph(nodes, "gelu", inputs, outputs, constants))
    graph = WeightedGraph(copy.deepcopy(proto), {}, None)
    half_precision.to_half(graph)
    x = np.array([1.0, 50.0, -300.0], dtype=np.float16)
    ours = ReferenceEvaluator(graph.proto).run(None, {"x": x})[0]
    assert ours.dtype == np.float16
    wide = x.astype(np.float64)
    np.testing.assert_allclose(ours, np.tanh(wide**3 * 1e-4 + wide) * wide, rtol=2e-3)


def test_branches_are_refused_by_name():
    body = onnx.helper.make_graph([], "body", [], [])
    node = onnx.helper.make_node("If", ["condition"], ["y"], name="branch", then_branch=body, else_branch=body)
    graph = WeightedGraph(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])), {}, None)
    with pytest.raises(OutputError, match=r"branches or loops \(`branch`, If\)"):
        half_precision.to_half(graph)
