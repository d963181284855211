"""Weights outside of the graph: above 2 GB, tied ones once, in one pass, within a bound of memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.export.test_export import checkpoint, export, report_of
from trl_rrtf.models.onnx_runtime import OnnxDecoder

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from trl_rrtf.export import weights  # noqa: E402
from trl_rrtf.export.weights import WeightedGraph  # noqa: E402

CPU = "CPUExecutionProvider"


@pytest.fixture
def above_two_gigabytes(monkeypatch):
    """As if every graph were: nothing may ask protobuf for a size, which fails there."""

    def fail(self):
        raise ValueError("EncodeError: above 2 GB")

    monkeypatch.setattr(weights, "_LARGEST_FILE", 1000)
    monkeypatch.setattr(onnx.ModelProto, "ByteSize", fail)
    monkeypatch.setattr(onnx.GraphProto, "ByteSize", fail)


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"precision": "fp32"}, 1.05),
        ({"precision": "int8"}, 0.35),
        ({"precision": "int8", "int8_method": "dynamic"}, 0.7),
        ({"precision": "fp16", "device": "cuda"}, 0.6),
    ],
    ids=str,
)
def test_above_two_gigabytes(settings, share, above_two_gigabytes, tiny_model_dir, tmp_path, monkeypatch):
    """Tied weights are kept once in every precision, and the graph is loaded from its two files."""
    from trl_rrtf.export import precision

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    model = checkpoint("llama", tiny_model_dir, tmp_path / "model", tie_word_embeddings=True, **sizes)
    loose = precision.Precision(precision.CONVERSIONS[settings["precision"]].convert, 0.5, 1.5)
    monkeypatch.setitem(precision.CONVERSIONS, settings["precision"], loose)  # a random model is less exact
    export(model, tmp_path / "onnx", **settings)
    parameters = report_of(tmp_path / "onnx")["sizes"]["parameters"]
    assert (tmp_path / "onnx" / "model.onnx_data").stat().st_size < share * 4 * parameters
    assert report_of(tmp_path / "onnx")["peak_memory_bytes"] > 10**7
    assert "model.onnx_data" in report_of(tmp_path / "onnx")["files"]
    ids = torch.arange(3, 20)[None]
    ours, _ = OnnxDecoder.load(tmp_path / "onnx", CPU).step(ids.numpy(), torch.ones_like(ids).numpy())
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(model)(ids).logits.numpy()
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98


def product_graph(folder):
    """A lookup and three products, whose weights are the same matrix, a copy, its transpose and another one."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((128, 64), dtype=np.float32)
    values = {"table": table, "copy": table.copy(), "transposed": np.ascontiguousarray(table.T)}
    values["other"] = rng.standard_normal((64, 128), dtype=np.float32)
    make = onnx.helper.make_node
    nodes = [
        make("Gather", ["table", "ids"], ["rows"]),
        make("Gather", ["copy", "ids"], ["rows_again"]),
        make("Add", ["rows", "rows_again"], ["sum"]),
        make("MatMul", ["sum", "transposed"], ["a"]),
        make("MatMul", ["sum", "other"], ["b"]),
        make("Add", ["a", "b"], ["y"]),
    ]
    inputs = [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 128])]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", inputs, outputs, tensors), opset_imports=[onnx.helper.make_opsetid("", 18)]
    )
    proto.ir_version = 10
    onnx.save(proto, folder / "before.onnx", save_as_external_data=True, location="before.data", size_threshold=0)
    return folder / "before.onnx"


@pytest.mark.parametrize("largest", [2**31, 1000])
def test_equal_weights_are_kept_once_and_the_result_is_the_same(largest, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_LARGEST_FILE", largest)
    path = product_graph(tmp_path)
    graph = WeightedGraph.load(path)
    assert set(graph.weights) == {"table", "copy", "transposed", "other"}
    assert not graph.proto.graph.initializer
    graph.merge_equal()
    assert set(graph.weights) == {"table", "other"}
    graph.save(tmp_path)
    assert (tmp_path / "model.onnx_data").exists() == (largest == 1000)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    ids = {"ids": np.arange(0, 128, 3)}
    before, after = (
        onnxruntime.InferenceSession(name, providers=[CPU]).run(None, ids)[0] for name in (path, tmp_path / "model.onnx")
    )
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300, 2**21, 2**31 + 5])
def test_lengths_are_written_as_protobuf_writes_them(length):
    from google.protobuf.internal.encoder import _VarintBytes

    assert weights._varint(length) == _VarintBytes(length)


def test_a_report_of_an_earlier_version_is_read(tiny_model_dir, tmp_path):
    from trl_rrtf.export.report import ExportReport

    difference = ("largest_difference", "mean_difference", "relative_difference", "cached_largest_difference")
    others = ("cached_relative_difference", "next_token_agreement", "greedy_agreement", "perplexity", "perplexity_of_pytorch")
    values = {
        "settings": {"precision": "fp32"},
        "exporter": "torch",
        "checkpoint": {"record": "none"},
        "provider": CPU,
        "parity": dict.fromkeys((*difference, *others), 1.0),
        "allowed": {},
        "sizes": {"parameters": 1, "bytes": 4, "share_of_fp32": 1.0},
        "versions": {},
        "files": [],
        "pushed_to": {},
    }
    (tmp_path / "export_report.json").write_text(json.dumps(values))
    report = ExportReport.load(tmp_path)
    assert (report.probes, report.reach, report.peak_memory_bytes) == ({}, None, 0)
