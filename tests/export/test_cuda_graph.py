"""The graph for CUDA, proved on the CPU provider, which has the same operators: lengths of rows instead of a mask; bfloat16.

No test machine has a GPU. In float32 the graph has the form that fp16 and bf16 give to CUDA, and must be PyTorch's to rounding.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache

from tests.export.test_export import ARCHITECTURES, checkpoint, export, report_of
from trl_rrtf import ConfigError, LoadError, OnnxCausalLM
from trl_rrtf.models import onnx_runtime, onnx_step
from trl_rrtf.models.key_value_cache import CACHE

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402

from trl_rrtf.export import bfloat16, half_precision  # noqa: E402
from trl_rrtf.export.graph import export_graph  # noqa: E402
from trl_rrtf.export.right_padding import pad_right  # noqa: E402
from trl_rrtf.export.weights import WeightedGraph  # noqa: E402

MODELS = ("llama", "gemma3_text")  # grouped heads; layers with a window of 8
MASK = torch.tensor([[0] * 4 + [1] * 7, [0] * 9 + [1] * 2, [1] * 11])


@pytest.fixture(scope="module", params=MODELS)
def models(request, tmp_path_factory):
    """PyTorch's, and ours from its graph in the form for CUDA."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **ARCHITECTURES[request.param], bos_token_id=None, eos_token_id=None)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    folder = tmp_path_factory.mktemp(request.param)
    graph, _ = export_graph(theirs, folder, fused=True)
    pad_right(graph)
    graph.save(folder)
    attention = [node for node in graph.proto.graph.node if node.op_type == "GroupQueryAttention"]
    assert [len(node.input) for node in attention] == [7, 7]  # no bias
    return OnnxCausalLM.from_pretrained(folder), theirs


def tokens(*shape):
    return torch.randint(1, 350, shape, generator=torch.Generator().manual_seed(3))


def expected(model, ids, mask):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0)).logits


def assert_equal(ours, theirs, mask):
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], atol=2e-5, rtol=0)


@pytest.mark.parametrize("mask", [MASK, MASK.flip(1), torch.ones_like(MASK)], ids=["left", "right", "none"])
def test_a_ragged_batch_is_pytorchs(models, mask):
    ours, theirs = models
    ids = tokens(3, 11)
    logits = ours(input_ids=ids, attention_mask=mask).logits
    assert_equal(logits, expected(theirs, ids, mask), mask)
    last = ours(input_ids=ids, attention_mask=mask, logits_to_keep=3).logits
    assert torch.equal(last[mask[:, -3:].bool()], logits[:, -3:][mask[:, -3:].bool()])


@pytest.mark.parametrize(
    "steps",
    [[11] + [1] * 60, [1] * 71, [3] * 23 + [2], [12, 1, 20, 1, 37]],
    ids=["token by token", "from the padding on", "in chunks", "mixed"],
)
@pytest.mark.parametrize("shares", [True, False], ids=["one buffer", "copies"])
def test_any_steps_over_the_cache_are_one_run(models, steps, shares, monkeypatch):
    """Past the window, and with rows of which a whole step is padding; also where a graph cannot share its buffer."""
    ours, theirs = models
    assert ours._step._shares
    monkeypatch.setattr(ours._step, "_shares", shares)
    ids, mask = tokens(3, 71), torch.cat([MASK, torch.ones(3, 60, dtype=torch.long)], dim=1)
    cache, found, end = DynamicCache(), [], 0
    for length in steps:
        step = {"input_ids": ids[:, end : end + length], "attention_mask": mask[:, : end + length]}
        found.append(ours(**step, **{CACHE: cache}).logits)
        end += length
    assert_equal(torch.cat(found, dim=1), expected(theirs, ids, mask), mask)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2},
        {"prefill_chunk_size": 4},
        {"use_cache": False},
    ],
    ids=str,
)
def test_generation_from_a_ragged_batch_is_pytorchs(models, settings):
    outputs = []
    for model in models:
        torch.manual_seed(0)
        settings = {"do_sample": False, "max_new_tokens": 24, "pad_token_id": 0, **settings}
        outputs.append(model.generate(tokens(3, 11), attention_mask=MASK, **settings))
    assert torch.equal(*outputs)


def test_rows_may_leave_the_batch_and_a_cache_may_be_cut(models):
    ours, theirs = models
    ids, mask = tokens(3, 14), torch.cat([MASK, torch.ones(3, 3, dtype=torch.long)], dim=1)
    cache = DynamicCache()
    ours(input_ids=ids[:, :13], attention_mask=mask[:, :13], **{CACHE: cache})
    cache.crop(-2)
    cache.batch_select_indices(torch.tensor([2, 0]))
    rows = [2, 0]
    logits = ours(input_ids=ids[rows, 11:], attention_mask=mask[rows], **{CACHE: cache}).logits
    assert_equal(logits, expected(theirs, ids, mask)[rows, 11:], mask[rows, 11:])


def test_padding_between_tokens_is_refused(models):
    holes = MASK.clone()
    holes[2, 5] = 0
    with pytest.raises(ConfigError, match="`attention_mask`: this graph, for CUDA, takes padding before or behind"):
        models[0](input_ids=tokens(3, 11), attention_mask=holes)


def test_the_cache_lies_in_one_buffer_until_that_is_full(models):
    """Nothing is copied from step to step; a cache that somebody else made is."""
    ours, theirs = models
    ids, mask = tokens(3, 20), torch.ones(3, 20, dtype=torch.long)
    cache = DynamicCache()
    places = []
    for end in range(8, 21):
        start = 0 if end == 8 else end - 1
        logits = ours(input_ids=ids[:, start:end], attention_mask=mask[:, :end], **{CACHE: cache}).logits
        places.append(cache.layers[0].keys.data_ptr())
        if end == 14:
            cache.layers[0].keys = cache.layers[0].keys.contiguous()
    assert len(set(places[:7])) == 1
    assert len(set(places[7:])) == 1
    assert_equal(logits, expected(theirs, ids, mask)[:, -1:], mask[:, -1:])


def test_long_prompts_are_read_in_chunks_without_the_logits_that_nobody_wants(models, monkeypatch):
    ours, theirs = models
    ids, mask = tokens(3, 11), MASK
    whole = ours(input_ids=ids, attention_mask=mask).logits
    monkeypatch.setattr(onnx_step, "CHUNK", 4)
    made = []
    run = type(ours._step)._run

    def counted(self, *inputs):
        logits, states = run(self, *inputs)
        made.append(tuple(logits.shape[:2]))
        return logits, states

    monkeypatch.setattr(type(ours._step), "_run", counted)
    cache = DynamicCache()
    last = ours(input_ids=ids, attention_mask=mask, logits_to_keep=1, **{CACHE: cache}).logits
    assert max(made) == (1, 4)
    torch.testing.assert_close(last, whole[:, -1:], atol=2e-5, rtol=0)
    ids, mask = torch.cat([ids, ids[:, :1]], dim=1), torch.nn.functional.pad(mask, (0, 1), value=1)
    logits = ours(input_ids=ids[:, -1:], attention_mask=mask, **{CACHE: cache}).logits
    assert_equal(logits, expected(theirs, ids, mask)[:, -1:], mask[:, -1:])


@pytest.fixture(scope="module")
def llama(tiny_model_dir, tmp_path_factory):
    return checkpoint("llama", tiny_model_dir, tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_export_for_cuda_is_fused_and_says_where_it_was_proved(precision, llama, tmp_path):
    folder = tmp_path / "onnx"
    export(llama, folder, precision=precision, device="cuda")
    found = report_of(folder)
    assert found["graph"] == "fused"
    assert found["proof"].endswith("not compared on a GPU")
    assert 1e-5 < found["parity"]["relative_difference"] < {"fp16": 0.01, "bf16": 0.05}[precision]
    graph = WeightedGraph.load(folder / "model.onnx")
    attention = [node for node in graph.proto.graph.node if node.op_type == "GroupQueryAttention"]
    types = half_precision.value_types(graph)
    kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    assert {types[name] for node in attention for name in node.input[:5]} == {kind}
    assert all(len(node.input) == 7 for node in attention)
    half_precision.require_float32(graph)
    if precision == "bf16":
        with pytest.raises(LoadError, match=r"has no kernel for a part of it .* a graph in bf16 runs on CUDA alone"):
            OnnxCausalLM.from_pretrained(folder, device="cpu")
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        inputs = tokenizer(["def add(a, b):", "x"], return_tensors="pt", padding=True, return_token_type_ids=False)
        model = OnnxCausalLM.from_pretrained(folder, device="cpu")
        assert model.dtype == torch.float16
        assert model.generate(**inputs, max_new_tokens=4, do_sample=False).shape[0] == 2


def test_every_value_of_the_emulation_is_in_bfloat16(llama, tmp_path):
    """Otherwise the proof is of another precision: the emulated logits and cache have no bits that bfloat16 has not."""
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    graph, _ = export_graph(model, tmp_path, fused=True)
    pad_right(graph)
    half_precision.to_half(graph, TensorProto.BFLOAT16)
    graph.save(tmp_path)
    session = bfloat16.emulating_session(tmp_path, "CPUExecutionProvider")
    ids = tokens(2, 9)
    logits, states = onnx_runtime.OnnxDecoder(session).step(ids.numpy(), np.ones((2, 9), dtype=np.int64))
    for values in (torch.from_numpy(logits), *states):
        assert torch.equal(values, values.bfloat16().float())
    with torch.no_grad():
        exact = model(input_ids=ids).logits
        rounded = model.bfloat16()(input_ids=ids).logits.float()
    ours, pytorchs = ((other - exact).abs().mean() for other in (torch.from_numpy(logits), rounded))
    assert 0.3 * pytorchs < ours < 2 * pytorchs


def test_what_cuda_has_not_in_bfloat16_stays_in_float32():
    """A comparison and a reciprocal; between them values are converted."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Reciprocal", ["square"], ["inverse"]),
        helper.make_node("Greater", ["inverse", "x"], ["is_larger"]),
        helper.make_node("Where", ["is_larger", "inverse", "x"], ["y"]),
    ]
    inputs, outputs = ([value(name, TensorProto.FLOAT, ["n"])] for name in "xy")
    graph = WeightedGraph(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)), {}, None)
    half_precision.to_half(graph, TensorProto.BFLOAT16)
    types = half_precision.value_types(graph)
    by_type = {node.op_type: {types[name] for name in node.input} - {TensorProto.BOOL} for node in graph.proto.graph.node}
    assert by_type["Reciprocal"] == by_type["Greater"] == {TensorProto.FLOAT}
    assert by_type["Mul"] == by_type["Where"] == {TensorProto.BFLOAT16}
    onnx.checker.check_model(graph.proto, full_check=True)


def test_a_folder_of_before_runs_as_it_did(llama, tmp_path):
    """Without the entries in its metadata: a cache that grows by copies, a mask with a bias."""
    folder = tmp_path / "onnx"
    export(llama, folder)
    model = onnx.load(folder / "model.onnx")
    assert {entry.key for entry in model.metadata_props} == {onnx_runtime.SHARED_CACHE_ENTRY}
    ours = OnnxCausalLM.from_pretrained(folder)
    del model.metadata_props[:]
    onnx.save(model, folder / "model.onnx")
    before = OnnxCausalLM.from_pretrained(folder)
    outputs = [one.generate(tokens(3, 11), attention_mask=MASK, max_new_tokens=9, do_sample=False) for one in (ours, before)]
    assert torch.equal(*outputs)
    assert json.loads((folder / "genai_config.json").read_text())["search"]["past_present_share_buffer"]


@pytest.fixture
def cuda_that_does_not_start(monkeypatch):
    """What onnxruntime-gpu 1.31.1 does on a machine without CUDA libraries: it lists CUDA, and gives a session on the CPU."""
    session = onnxruntime.InferenceSession

    def on_the_cpu(path, options, providers):
        if providers == ["CUDAExecutionProvider"]:
            print("*** EP Error ***\nEP Error no kernel image is available when using ['CUDAExecutionProvider']")
        return session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcublas.so.13"), raising=False)


def test_cuda_that_does_not_start_is_named_with_the_reason(
    llama, tmp_path, cuda_that_does_not_start, monkeypatch, caplog, capsys
):
    folder = tmp_path / "onnx"
    export(llama, folder)
    with pytest.raises(ConfigError, match=r"`device`: onnxruntime has CUDA and torch \(.*\) is built without it"):
        OnnxCausalLM.from_pretrained(folder, device="cuda")
    model = OnnxCausalLM.from_pretrained(folder)
    assert model.device.type == "cpu"
    assert "CUDA cannot be used, and the CPU is, as no `device` was asked for" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    capsys.readouterr()
    reason = "did not start, .*libcublas.so.13.* no kernel image is available .* needs CUDA .* cuDNN 9"
    with pytest.raises(ConfigError, match=reason):
        OnnxCausalLM.from_pretrained(folder, device="cuda")
    assert capsys.readouterr().out == ""
