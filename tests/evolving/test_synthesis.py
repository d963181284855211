"""Tests of a teacher: how they are found, what they are checked with, and which are kept."""

from __future__ import annotations

from trl_rrtf.evolving.synthesis import called_function, find_assertions, kept_tests, mutants


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
