"""Evol-Instruct: prompts that make a problem a bit harder, and the rules by which a failed evolution is recognised.

The prompt follows the description in the PanGu-Coder2 paper (arXiv 2307.14936, section 3.1) with WizardCoder's five in-depth
methods (arXiv 2306.08568). The paper's own wording is not public.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass

from trl_rrtf.options import check_choices

METHODS = {
    "constraint": "Add one new constraint or requirement to the task, of about ten words.",
    "rarer_requirement": "Replace a commonly used requirement of the task by a less common and more specific one.",
    "reasoning_steps": "If the task can be solved in a few simple steps, add further reasoning steps.",
    "misleading_code": "Provide a piece of erroneous code as a reference, to add misdirection.",
    "complexity": "Demand a better time or space complexity. Do this only if it makes the task more interesting.",
}
"""Name -> what the writer is asked to do; WizardCoder's five."""

METHOD_WEIGHTS = {"constraint": 3, "rarer_requirement": 3, "reasoning_steps": 3, "misleading_code": 2, "complexity": 1}
"""How often each is chosen; demands on complexity rarely, as in the paper."""

_PROMPT = """I want you to act as a Programming Contest Designer. Rewrite the given programming task into a slightly harder
version.
The new task must be reasonable, understandable and solvable with code by a human, and it must stand alone: whoever solves it
does not see the given one. Keep tables, code and inputs of the given task. Keep a similar length. Ask for a solution on the
level of a function. Do not mention the given task, and write nothing but the new task.

Use this method: {method}

The given task:
{statement}

The new task:
"""


def evolving_prompt(statement: str, method: str) -> str:
    """The request for one evolution.

    Args:
        statement: The problem's statement.
        method: A key of [`METHODS`][trl_rrtf.evolving.rewriting.METHODS].

    Raises:
        ConfigError: The method is unknown.
    """
    check_choices("methods", [method], METHODS)
    return _PROMPT.format(method=METHODS[method], statement=statement.strip())


def choose_method(problem_id: str, round_number: int, seed: int, methods: list[str]) -> str:
    """The method of a problem in a round, always the same for the same seed."""
    key = hashlib.blake2b(f"{seed}/{round_number}/{problem_id}".encode(), digest_size=8).digest()
    weights = [METHOD_WEIGHTS[method] for method in methods]
    return random.Random(key).choices(methods, weights)[0]


@dataclass(frozen=True)
class EliminationLimits:
    """Numbers of the elimination rules.

    Attributes:
        max_similarity: Similarity of the words (0 to 1) from which an evolution repeats its parent.
        min_characters: Shortest statement.
        max_growth: Longest statement, as a multiple of its parent (and at least 1,000 characters).
    """

    max_similarity: float = 0.9
    min_characters: int = 30
    max_growth: float = 4.0


_REFUSAL = re.compile(r"\b(i'?m sorry|i am sorry|as an ai|i cannot|i can'?t (?:help|assist|do))\b", re.IGNORECASE)
_LEAKED = re.compile(
    r"#?given (?:prompt|task)|#?(?:rewritten|new|created) (?:prompt|task)|programming contest designer|slightly harder version",
    re.IGNORECASE,
)
_NOT_A_FUNCTION = re.compile(
    r"\b(web ?(?:site|page|app)|html|css|gui|user interface|sql query|database|mobile app|server|download)\b", re.IGNORECASE
)
_A_TASK = re.compile(
    r"\b(function|method|algorithm|program|code|python|implement|return|compute|calculate|find|given|write|create|determine)\b",
    re.IGNORECASE,
)


def reason_to_eliminate(evolved: str, parent: str, limits: EliminationLimits) -> str | None:
    """Why an evolution failed, or None.

    Args:
        evolved: What the writer answered.
        parent: The statement that it was made from.
        limits: Numbers of the rules.

    Returns:
        `refused`, `too_short`, `too_long`, `names_the_given_task`, `too_similar`, `not_a_function` or None.
    """
    from rapidfuzz import fuzz

    if _REFUSAL.search(evolved[:200]):
        return "refused"
    if len(evolved.strip()) < limits.min_characters:
        return "too_short"
    if len(evolved) > max(1000, limits.max_growth * len(parent)):
        return "too_long"
    if _LEAKED.search(evolved):
        return "names_the_given_task"
    if fuzz.ratio(evolved.lower().split(), parent.lower().split()) >= 100 * limits.max_similarity:
        return "too_similar"
    if _NOT_A_FUNCTION.search(evolved) or not _A_TASK.search(evolved):
        return "not_a_function"
    return None
