"""Tiny models of many families, exported and compared with PyTorch; makes the tables of `docs/families.md`.

python -m tests.export.families            # every family, with the transformers that is installed
python -m tests.export.families mixtral    # one, whose rows are replaced
"""

from __future__ import annotations

import argparse
import inspect
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from trl_rrtf import ConfigError, ExportArguments, ExportConfig, OnnxCausalLM, run_export
from trl_rrtf.models.key_value_cache import CACHE

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
LINE = ".".join(transformers.__version__.split(".")[:2])
VOCABULARY, LONGEST, WINDOW = 370, 512, 16

COMMON = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"max_position_embeddings": LONGEST, "initializer_range": 0.2},
}
GROUPED = {**COMMON, "num_key_value_heads": 2}
GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LONGEST, "initializer_range": 0.2}
FALCON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
SLIDING = {"sliding_window": WINDOW}
MIXED = {**SLIDING, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    **{**GROUPED, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 8},
    **{"qk_nope_head_dim": 8, "n_routed_experts": 4, "n_shared_experts": 1, "moe_intermediate_size": 16},
    **{"num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
}
ROUTED = {**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}

FAMILIES = {
    "Llama": ("llama", GROUPED),
    "Llama, llama3 rotary": ("llama", {**GROUPED, "rope_scaling": {**LLAMA_3, "original_max_position_embeddings": 64}}),
    "Llama, linear rotary": ("llama", {**GROUPED, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "Llama, YaRN": (
        "llama",
        {**GROUPED, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
    ),
    "Llama, dynamic NTK (capped)": ("llama", {**GROUPED, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    "Mistral, window": ("mistral", {**GROUPED, **SLIDING}),
    "Mixtral": ("mixtral", {**GROUPED, **EXPERTS}),
    "Qwen2, Qwen2.5": ("qwen2", GROUPED),
    "Qwen2, window": ("qwen2", {**GROUPED, **SLIDING, "use_sliding_window": True, "max_window_layers": 1}),
    "Qwen2-MoE": ("qwen2_moe", {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "Qwen3, wide heads": ("qwen3", {**GROUPED, "head_dim": 16}),
    "Qwen3-MoE": ("qwen3_moe", {**GROUPED, **EXPERTS, "head_dim": 16}),
    "Gemma": ("gemma", {**GROUPED, "head_dim": 16}),
    "Gemma 2": ("gemma2", {**GROUPED, **SLIDING, "head_dim": 16, "query_pre_attn_scalar": 16}),
    "Gemma 3 (text)": ("gemma3_text", {**GROUPED, **MIXED, "head_dim": 16, "query_pre_attn_scalar": 16}),
    "Phi": ("phi", COMMON),
    "Phi-3": ("phi3", {**GROUPED, "pad_token_id": 0}),
    "Phi-3, LongRoPE (capped)": (
        "phi3",
        {**GROUPED, "pad_token_id": 0, "original_max_position_embeddings": 96, "rope_scaling": LONGROPE},
    ),
    "StarCoder2, window": ("starcoder2", {**GROUPED, **SLIDING}),
    "GPT-BigCode (StarCoder)": ("gpt_bigcode", GPT),
    "GPT-2": ("gpt2", GPT),
    "GPT-Neo, window": (
        "gpt_neo",
        {
            **{"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "initializer_range": 0.2},
            **{"attention_types": [[["global", "local"], 1]], "window_size": WINDOW, "max_position_embeddings": LONGEST},
        },
    ),
    "GPT-NeoX": ("gpt_neox", COMMON),
    "GPT-J": ("gptj", {**GPT, "rotary_dim": 4}),
    "CodeGen": ("codegen", {**GPT, "rotary_dim": 4}),
    "Falcon": ("falcon", {**FALCON, "multi_query": True}),
    "Falcon, new architecture": ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "Falcon, ALiBi": ("falcon", {**FALCON, "alibi": True}),
    "OLMo": ("olmo", GROUPED),
    "OLMo 2": ("olmo2", GROUPED),
    "OLMo 3, window": ("olmo3", {**GROUPED, **SLIDING}),
    "SmolLM3": ("smollm3", {**GROUPED, "no_rope_layers": [1, 0]}),
    "Granite": ("granite", {**GROUPED, "attention_multiplier": 0.3, "residual_multiplier": 0.5}),
    "Granite-MoE": ("granitemoe", {**GROUPED, **EXPERTS}),
    "StableLM": ("stablelm", {**GROUPED, "partial_rotary_factor": 0.25}),
    "Cohere": ("cohere", {**GROUPED, "pad_token_id": 0}),
    "Cohere 2, window": ("cohere2", {**GROUPED, **SLIDING, "pad_token_id": 0}),
    "GLM": ("glm", {**GROUPED, "head_dim": 8, "pad_token_id": 0}),
    "GLM-4": ("glm4", {**GROUPED, "head_dim": 8, "pad_token_id": 0}),
    "MPT, ALiBi": (
        "mpt",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "n_layers": 2,
            "n_heads": 4,
            "max_seq_len": LONGEST,
            "initializer_range": 0.2,
        },
    ),
    "BLOOM, ALiBi": (
        "bloom",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    ),
    "OPT": ("opt", {**COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2}),
    "DeepSeek-V2": ("deepseek_v2", LATENT),
    "DeepSeek-V3": ("deepseek_v3", LATENT),
    "gpt-oss, window": ("gpt_oss", {**GROUPED, **EXPERTS, **MIXED, "head_dim": 16, "rope_scaling": None}),
    "ERNIE 4.5": ("ernie4_5", {**GROUPED, "head_dim": 8}),
    "EXAONE 4, window": ("exaone4", {**GROUPED, **MIXED}),
    "Hunyuan": ("hunyuan_v1_dense", {**GROUPED, "head_dim": 8, "pad_token_id": 0}),
    "Nemotron": ("nemotron", GROUPED),
    "Persimmon": ("persimmon", COMMON),
    "Apertus": ("apertus", GROUPED),
    "Arcee": ("arcee", GROUPED),
    "Seed-OSS": ("seed_oss", {**GROUPED, "head_dim": 8}),
    "BitNet": ("bitnet", GROUPED),
    "Llama 4 (text), chunks": (
        "llama4_text",
        {
            **GROUPED,
            **EXPERTS,
            "attention_chunk_size": WINDOW,
            "intermediate_size_mlp": 64,
            "no_rope_layers": [1, 0],
            "head_dim": 8,
        },
    ),
    "JetMoe": ("jetmoe", {**GROUPED, **EXPERTS, "kv_channels": 16}),
    "Gemma 3n (text), shared caches": (
        "gemma3n_text",
        {
            **{**GROUPED, **SLIDING, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
            **{"head_dim": 16, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY, "laurel_rank": 8},
            **{"num_kv_shared_layers": 2, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 4},
        },
    ),
    "Phi-3.5-MoE": ("phimoe", {**GROUPED, **EXPERTS}),
    "OLMoE": ("olmoe", {**GROUPED, **EXPERTS}),
    "ERNIE 4.5 MoE": ("ernie4_5_moe", {**GROUPED, **EXPERTS, "moe_num_experts": 4, "moe_k": 2}),
    "GLM-4.5": ("glm4_moe", {**{**GROUPED, **ROUTED}, "head_dim": 8}),
    "dots.llm1": ("dots1", {**GROUPED, **ROUTED}),
    "Qwen3-Next, linear attention": (
        "qwen3_next",
        {
            **{**GROUPED, **EXPERTS, "head_dim": 16, "layer_types": ["linear_attention", "full_attention"]},
            **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
            "shared_expert_intermediate_size": 32,
        },
    ),
    "LFM2, convolutions": ("lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"], "block_ff_dim": 64}),
    "Mamba": ("mamba", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
}
"""Name in the table -> `model_type` and sizes. Where there is a window, it is shorter than what is compared."""


@dataclass(frozen=True)
class Result:
    """What came of an export.

    Attributes:
        graph: `fused` or `plain`; empty where it was refused.
        exporter: `optimum` or `torch`; empty where it was refused.
        difference: Largest difference of a logit from PyTorch's, as a share of the largest logit.
        agreement: Share of positions where both find the same token the likeliest.
        refusal: Why it was refused; else empty.
    """

    graph: str
    exporter: str
    difference: float
    agreement: float
    refusal: str


def save_checkpoint(name, tokenizer, folder):
    """Saves a random model of a family; the spread of its weights makes the likeliest token clear."""
    model_type, sizes = FAMILIES[name]
    torch.manual_seed(0)
    tokens = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(model_type, **{**tokens, **sizes})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def compare(name, tokenizer, folder, graph=None):
    """Exports a family's model and compares the graph with PyTorch.

    Both read a batch of two texts of 84 tokens, one of them with padding on the left: at once, and in two pieces of 12 tokens
    with 60 steps of one token after them.
    """
    model = save_checkpoint(name, tokenizer, folder / "model")
    try:
        summary = run_export(ExportArguments(str(model), str(folder / "onnx")), ExportConfig(graph=graph))
    except ConfigError as error:
        return Result("", "", 0.0, 0.0, str(error))
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    if getattr(theirs.config, "attn_logit_softcapping", None):
        theirs.set_attn_implementation("eager")  # SDPA leaves the soft cap out
    ours = OnnxCausalLM.from_pretrained(folder / "onnx")
    ids = torch.randint(3, VOCABULARY, (2, 84), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[0, :9] = mask[0, :9] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.inference_mode():
        told = {"position_ids": positions} if "position_ids" in inspect.signature(theirs.forward).parameters else {}
        expected = theirs(input_ids=ids, attention_mask=mask, use_cache=False, **told).logits
        found = [ours(input_ids=ids, attention_mask=mask, position_ids=positions).logits]
        cache, parts = DynamicCache(), []
        for start, end in [(0, 12), (12, 24), *((step, step + 1) for step in range(24, 84))]:
            piece = {"input_ids": ids[:, start:end], "position_ids": positions[:, start:end], CACHE: cache}
            parts.append(ours(attention_mask=mask[:, :end], **piece).logits)
        found.append(torch.cat(parts, dim=1))
    is_token = mask.bool()
    scale = expected[is_token].abs().max()
    difference = max(float((logits - expected)[is_token].abs().max() / scale) for logits in found)
    same = min(float((logits.argmax(-1) == expected.argmax(-1))[is_token].float().mean()) for logits in found)
    return Result(summary.graph, summary.exporter, difference, same, "")


def row_of(name, default, plain):
    """A row of the table."""
    model_type, _ = FAMILIES[name]
    if default.refusal:
        return f"| {name} | `{model_type}` | refused: {short(default.refusal)} | | | |"
    other = "" if default.graph == "plain" else "refused" if plain.refusal else f"{plain.difference:.0e}"
    return f"| {name} | `{model_type}` | {default.graph} | {default.exporter} | {default.difference:.0e} | {other} |"


def short(refusal):
    """The reason in a refusal."""
    reason = (
        refusal.partition(" (")[2].partition("); ")[0] if "); " in refusal else refusal.partition("`: ")[2].partition(" (")[0]
    )
    return reason.replace("|", "/")[:100]


HEADER = """| family | `model_type` | graph | exporter | largest difference | plain graph |
|---|---|---|---|---|---|
"""


def section(line):
    """Where a line's table stands in the page: its beginning and end."""
    return f"<!-- begin {line} -->\n", f"<!-- end {line} -->\n"


def written_rows(line=LINE):
    """The rows of a line's table, by family."""
    begin, end = section(line)
    table = PAGE.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    return {row.split(" | ")[0][2:]: row for row in table.splitlines()[2:]}


def write(rows):
    """Replaces rows, by family, of this line's table in the page."""
    rows = {**written_rows(), **rows}
    rows = [rows[name] for name in FAMILIES if name in rows]
    begin, end = section(LINE)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + begin + HEADER + "".join(f"{row}\n" for row in rows) + end + after, encoding="utf-8")


def main():
    """Runs families and prints their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="families, by `model_type`; all by default")
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer with 370 tokens, as the tests make it")
    options = parser.parse_args()
    from transformers import AutoTokenizer

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    tokenizer, rows = AutoTokenizer.from_pretrained(options.tokenizer), {}
    for name, (model_type, _) in FAMILIES.items():
        if options.names and model_type not in options.names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                default = compare(name, tokenizer, Path(folder, "default"))
                plain = default if default.refusal else compare(name, tokenizer, Path(folder, "plain"), "plain")
                rows[name] = row_of(name, default, plain)
            except Exception as error:
                rows[name] = f"| {name} | FAILED {type(error).__name__}: {error} |"
        print(rows[name], flush=True)
    write(rows)


if __name__ == "__main__":
    main()
