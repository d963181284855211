"""Evol-Instruct's prompts and elimination rules; which tests of a teacher are kept."""

from __future__ import annotations

from collections import Counter

import pytest

from trl_rrtf import ConfigError
from trl_rrtf.problems.evolution import METHODS, EliminationLimits, choose_method, evolving_prompt, reason_to_eliminate
from trl_rrtf.problems.test_synthesis import called_function, find_assertions, kept_tests, mutants

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


def test_assertions_are_found_line_by_line():
    answer = (
        "```python\ndef add(a, b):\n    return a + b\n```\n```python\nassert add(1, 2) == 3  # simple\nassert add(1, 2) == 3\n"
        "assert add( == 1\nassert True\n    assert add(0,0)==0\nprint(add(1, 1))\n```"
    )
    found = find_assertions(answer)
    assert found == ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
    assert called_function(found, "def helper(x):\n    return x\ndef add(a, b):\n    return a + b\n") == "add"


def test_mutants_differ_and_compute_something_else():
    program = "def f(x):\n    if x > 0:\n        return x + 1\n    return 0\n"
    changed = list(mutants(program))
    assert len(set(changed)) == len(changed) >= 6
    results = []
    for text in changed:
        names = {}
        exec(text, names)
        results.append([names["f"](x) for x in (-1, 0, 1, 5)])
    assert sum(row != [0, 0, 2, 6] for row in results) >= len(changed) - 1


def test_a_test_stays_if_reference_and_votes_agree_and_the_set_kills_a_mutant():
    passes = [True, True, False, True]
    votes = [[True, False, True, True], [True, False, True, True], [False, True, True, True]]
    assert kept_tests(passes, votes, [[True, False, False, False]], 2) == ([0, 3], None)
    assert kept_tests(passes, votes, [[False, True, True, False]], 2) == ([], "kills_no_mutant")
    assert kept_tests(passes, votes, [[True] * 4], 3) == ([], "too_few_tests")
    assert kept_tests(passes, [], [[True] * 4], 3) == ([0, 1, 3], None)
