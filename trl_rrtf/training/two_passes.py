"""The gradient of a loss over more candidates than fit through the model at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor


def loss_in_two_passes(
    parts: Sequence[Any],
    log_likelihoods_of: Callable[[Any], Tensor],
    loss_of: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor], None],
    no_sync: Callable[[], AbstractContextManager[Any]],
) -> Tensor:
    """Runs all parts without graph, then each again with its scalar weights; only one part's graph is in memory at a time.

    The loss of a group needs all of its candidates, but its gradient is the sum over candidates of dL/dp_i (a number) times the
    gradient of p_i, so the parts can go backward one after the other. Dropout sees the same random numbers in both passes.

    Source: GradCache, arXiv 2101.06983.

    Args:
        parts: The parts of a batch.
        log_likelihoods_of: Runs a part; (R,) log-likelihoods, 0 for candidates of other parts.
        loss_of: (R,) log-likelihoods of all parts -> scalar loss.
        backward: Adds the gradients of a scalar.
        no_sync: Inside, gradients are not exchanged between processes; for all parts but the last.

    Returns:
        The loss as a scalar whose own backward is that of the last part; the others' gradients are there already.
    """
    states, values = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state())
            values.append(log_likelihoods_of(part))
    log_likelihoods = torch.stack(values).sum(dim=0).requires_grad_()
    with torch.enable_grad():
        loss = loss_of(log_likelihoods)
    (weights,) = torch.autograd.grad(loss, log_likelihoods)

    end_state = _random_state()
    for number, (part, state) in enumerate(zip(parts, states, strict=True), start=1):
        with _random_state_set_to(state, end_state):
            weighted = (weights * log_likelihoods_of(part)).sum()
        if number < len(parts):
            with no_sync():
                backward(weighted)
    return loss.detach() + weighted - weighted.detach()


def _random_state() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


@contextmanager
def _random_state_set_to(state: dict[str, Tensor], after: dict[str, Tensor]) -> Iterator[None]:
    _set_random_state(state)
    try:
        yield
    finally:
        _set_random_state(after)


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
