"""Evol-Instruct's prompts and elimination rules."""

from __future__ import annotations

from collections import Counter

import pytest

from trl_rrtf import ConfigError
from trl_rrtf.evolving.rewriting import METHODS, EliminationLimits, choose_method, evolving_prompt, reason_to_eliminate

pytest.importorskip("rapidfuzz")
PARENT = "Write a function that returns the sum of all even numbers of a list of integers."


def test_the_prompt_holds_the_task_and_the_method():
    for method, text in METHODS.items():
        prompt = evolving_prompt(f"  {PARENT}\n", method)
        assert text in prompt
        assert f"\n{PARENT}\n" in prompt
        assert "Programming Contest Designer" in prompt
    with pytest.raises(ConfigError, match="`methods`: expected some of constraint"):
        evolving_prompt(PARENT, "magic")


def test_methods_repeat_and_follow_their_weights():
    chosen = [choose_method(f"p/{i}", 1, 0, list(METHODS)) for i in range(1200)]
    assert chosen == [choose_method(f"p/{i}", 1, 0, list(METHODS)) for i in range(1200)]
    counts = Counter(chosen)
    assert counts["complexity"] < counts["misleading_code"] < min(counts["constraint"], counts["reasoning_steps"])
    assert {choose_method(f"p/{i}", 1, 0, ["constraint"]) for i in range(20)} == {"constraint"}


@pytest.mark.parametrize(
    ("evolved", "reason"),
    [
        ("Write a function that returns the sum of all even numbers of a list whose neighbours are both odd.", None),
        (PARENT.replace("integers", "ints"), "too_similar"),
        ("Sum it.", "too_short"),
        ("I'm sorry, but I can't help with rewriting this programming task for you.", "refused"),
        ("Write a function " + "that adds numbers and " * 100, "too_long"),
        ("#New Task#: write a function that sums every second even number of a list.", "names_the_given_task"),
        ("Build a web page with a form that sums the even numbers that a user types in.", "not_a_function"),
        ("The weather is nice today, and the sun is shining over the hills.", "not_a_function"),
    ],
)
def test_failed_evolutions_are_recognised(evolved, reason):
    assert reason_to_eliminate(evolved, PARENT, EliminationLimits()) == reason
