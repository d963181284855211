"""Mixtures of experts in a graph: every expert computes every token, and the router's weights, mostly zero, add them up.

A graph cannot choose which of its nodes run, and transformers' own ways either do (a loop over the experts that were hit) or
copy an expert's weights for every token. This computes more than PyTorch does, number of experts / experts per token times, and
gives the same. Each expert's matrices are weights of their own, so that they are quantised like all others.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

NAME = "trl_rrtf_dense"
"""Name of the implementation that is registered with transformers 5."""

_PARTS = ("gate_up_proj", "up_proj", "down_proj")
_MATRICES = "_matrices_of_experts"


@contextlib.contextmanager
def dense_experts(model: PreTrainedModel) -> Iterator[None]:
    """Inside, mixtures of experts compute densely; other models are left alone."""
    with _dense_blocks(model):
        experts = [module for module in model.modules() if _is_mixture(module)]
        if experts:
            with _dense_stacks(experts):
                yield
        else:
            yield


@contextlib.contextmanager
def _dense_stacks(experts: list[Any]) -> Iterator[None]:
    """Those of transformers 5, whose matrices are stacked."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, _dense_forward)
    earlier = [module.config._experts_implementation for module in experts]
    for module in experts:
        matrices = nn.ModuleDict()
        for part in _PARTS:
            if isinstance(stacked := getattr(module, part, None), nn.Parameter):
                matrices[part] = nn.ParameterList(nn.Parameter(matrix, requires_grad=False) for matrix in stacked.detach())
        module.add_module(_MATRICES, matrices)
        module.config._experts_implementation = NAME
    try:
        yield
    finally:
        for module, implementation in zip(experts, earlier, strict=True):
            delattr(module, _MATRICES)
            module.config._experts_implementation = implementation


def _is_mixture(module: nn.Module) -> bool:
    """Whether transformers lets a module's experts be computed in another way; the decorator leaves these marks."""
    return all(hasattr(module, name) for name in ("has_gate", "is_transposed", "num_experts", "down_proj", "config"))


def _dense_forward(experts: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """States (T, H), chosen experts (T, K) and their weights (T, K) in; states (T, H) out."""
    total = torch.zeros_like(hidden_states)
    for expert in range(experts.num_experts):
        states = _product(experts, "gate_up_proj" if experts.has_gate else "up_proj", expert, hidden_states)
        states = experts._apply_gate(states) if experts.has_gate else experts.act_fn(states)
        states = _product(experts, "down_proj", expert, states)
        if experts.has_post_expert_norm:
            states = experts.post_expert_norm(states)
        weight = torch.where(top_k_index == expert, top_k_weights, 0.0).sum(dim=-1, keepdim=True)
        total = total + states * weight
    return total.to(hidden_states.dtype)


def _product(experts: Any, part: str, expert: int, states: Tensor) -> Tensor:
    matrix = getattr(experts, _MATRICES)[part][expert]
    bias = getattr(experts, f"{part}_bias")[expert] if experts.has_bias else None
    return nn.functional.linear(states, matrix.T if experts.is_transposed else matrix, bias)


@contextlib.contextmanager
def _dense_blocks(model: PreTrainedModel) -> Iterator[None]:
    """Those of transformers 4 that loop over the experts that were hit: each expert is a module."""
    replaced: list[tuple[nn.Module, str]] = []
    for module in model.modules():
        if not isinstance(getattr(module, "experts", None), nn.ModuleList):
            continue
        if hasattr(module, "moe"):  # DeepSeek, GLM-4.5, dots.llm1: states, chosen experts, weights
            module.moe = functools.partial(_sum_of_experts, module)
            replaced.append((module, "moe"))
        elif type(module).__name__ in _ROUTED_BLOCKS:
            module.forward = functools.partial(_routed_forward, module)  # type: ignore[method-assign]
            replaced.append((module, "forward"))
    try:
        yield
    finally:
        for module, name in replaced:
            delattr(module, name)


def _routed_forward(block: Any, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
    """States (B, S, H) in; states and the router's logits (B * S, E) out."""
    states = hidden_states.view(-1, hidden_states.shape[-1])
    logits = block.gate(states)
    weights, chosen = nn.functional.softmax(logits, dim=1, dtype=torch.float).topk(block.top_k, dim=-1)
    if getattr(block, "norm_topk_prob", True):  # Mixtral has no such setting
        weights = weights / weights.sum(dim=-1, keepdim=True)
    total = _sum_of_experts(block, states, chosen, weights.to(states.dtype))
    if hasattr(block, "shared_expert"):
        total = total + torch.sigmoid(block.shared_expert_gate(states)) * block.shared_expert(states)
    return total.view(hidden_states.shape), logits


def _sum_of_experts(block: Any, states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """States (T, H), chosen experts (T, K) and their weights (T, K) in; states (T, H) out."""
    total = torch.zeros_like(states)
    for index, expert in enumerate(block.experts):
        total = total + expert(states) * torch.where(chosen == index, weights, 0.0).sum(dim=-1, keepdim=True)
    return total.to(states.dtype)


_ROUTED_BLOCKS = ("MixtralSparseMoeBlock", "Qwen2MoeSparseMoeBlock", "Qwen3MoeSparseMoeBlock", "OlmoeSparseMoeBlock")
"""Classes of transformers 4 that route as `_routed_forward` does."""
