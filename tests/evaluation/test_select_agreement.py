"""Agreement of outputs: clusters by hand, rounding, and values without a text; real judge."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from trl_rrtf import Candidate, JudgeConfig, Problem, SelectArguments, SelectConfig, UnitTest, run_select
from trl_rrtf.evaluation.generated_inputs import generate_inputs
from trl_rrtf.evaluation.same_outputs import NO_TEXT, agreements
from trl_rrtf.rows.records import CandidateGroup


def agree(outputs, kind="expression", tolerance=1e-6):
    return agreements(outputs, kind, tolerance)


def test_agreement_is_the_size_of_the_cluster():
    assert agree([["1", "2"], ["1", "2"], ["1", "3"]]) == [2, 2, 1]
    assert agree([]) == []


def test_errors_are_no_agreement():
    assert agree([[None, None]] * 5 + [["1", "2"]]) == [0] * 5 + [1]
    # Four that fail on three inputs of four agree on one alone.
    assert agree([["0", None, None, None]] * 4 + [["0", "1", "2", "3"]] * 2) == [1, 1, 1, 1, 2, 2]
    # An input that no program takes tells nothing.
    assert agree([["1", None], ["1", None], ["2", None]]) == [2, 2, 1]
    assert agree([[None], [None]]) == [0, 0]


def test_agreement_does_not_depend_on_the_order_of_candidates():
    outputs = [("1", "2.0000008"), ("1", "2.0000016"), ("1", "2"), ("1", None), (None, None), ("1", "2.0000024")]
    expected = dict(zip(outputs, agree(outputs), strict=True))
    assert expected["1", "2"] == 4  # through the others
    for order in permutations(outputs):
        assert agree(order) == [expected[own] for own in order]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.30000000000000004", "0.3"),
        ("2", "2.0"),
        ("0.0", "-5e-17"),  # nearly zero
        ("[0.1, {'a': (0.30000000000000004, None)}]", "[0.1, {'a': (0.3, None)}]"),
        ("{0.30000000000000004, 2.0}", "{2, 0.3}"),
        ("{0.30000000000000004: 'x', 1: 'y'}", "{0.3: 'x', 1: 'y'}"),
        ("[nan, inf, -inf, 0.3]", "[nan, inf, -inf, 0.30000000000000004]"),
        ("array([0.3, 1.0])", "array([0.30000000000000004, 1.0])"),
        ("Point(x=0.3, y=1)", "Point(x=0.30000000000000004, y=1)"),
        ("0.5000005", "0.5000004999999999"),  # both sides of where a rounded text would change
    ],
)
def test_numbers_agree_but_for_rounding(one, other):
    assert agree([[one], [other]]) == agree([[other], [one]]) == [2, 2]
    if "." in one and one != "2":
        assert agree([[one], [other]], tolerance=0) == [1, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.3", "0.30001"),
        ("1000000", "1000001"),  # integers are no approximations
        ("'0.3'", "'0.30000000000000004'"),
        ("True", "1"),
        ("[1]", "(1,)"),
        ("[1]", "[1, 1]"),
        ("Point(x=0.3)", "Point(y=0.3)"),
        ("nan", "0.0"),
        ("{{1}}", "{{2}}"),  # what canonical text makes of frozen sets
        ("0.5", str(10**400)),
        ("f(", "f(("),
    ],
)
def test_what_differs_does_not_agree(one, other):
    assert agree([[one], [other]]) == [1, 1]


def test_printed_numbers_agree_as_in_a_test_of_output():
    assert agree([["0.3 x\n"], ["0.30000000000000004  x \n"], ["0.31 x"]], "stdin") == [2, 2, 1]
    assert agree([["0.3 x\n"], ["0.30000000000000004 x\n"], [" 0.3 x  \n\n"]], "stdin", 0) == [2, 1, 2]
    assert agree([["1000"], ["1001"], ["1000.0"]], "stdin") == [2, 1, 2]


def test_an_input_on_which_most_values_have_no_text_tells_nothing():
    assert agree([[NO_TEXT], [NO_TEXT], ["range(0, 4)"]]) == [None] * 3
    assert agree([[NO_TEXT, "1"], [NO_TEXT, "1"], ["2", "3"]]) == [2, 2, 1]
    assert agree([[NO_TEXT], ["1"], ["1"], ["1"]]) == [0, 3, 3, 3]  # one function among numbers is no reason to say nothing
    assert agree([[NO_TEXT], [None]]) == [None] * 2


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("assert list(g(3)) == [0, 1, 2]", ["list(g(3))"]),
        ("assert sorted(list(g(3)), reverse=True) == [2, 1, 0]", ["sorted(list(g(3)), reverse=True)"]),
        ("assert ', '.join(g(3)) == '0, 1'", ["', '.join(g(3))"]),
        ("assert g(3).v == 1 and g(4).get(2).w == 3", ["g(3).v", "g(4).get(2).w"]),
        ("assert g(3)(4) == 1", ["g(3)(4)"]),
        ("assert round(g(3), 2) == 0.5", ["round(g(3), 2)"]),
        # What tells less than the value, or depends on what stands elsewhere, does not stay.
        ("assert len(g(3)) == 3 and isinstance(g(4), list)", ["g(3)", "g(4)"]),
        ("assert abs(g(3) - 0.5) < 1e-6", ["g(3)"]),
        ("n = 2\nassert round(g(3), n) == 0.5 and g(4).equals(n)", ["g(3)", "g(4)"]),
        ("assert sorted(g(3), key=lambda x: x) == [1]", ["g(3)"]),
        ("assert list(*g(3)) == [] and list(g(4), **{'a': 1})", ["g(3)", "g(4)"]),
    ],
)
def test_what_a_test_makes_of_a_result_stays_around_the_call(code, texts):
    problem = Problem(problem_id="p", prompt="-", tests=[], entry_point="g")
    made = generate_inputs(problem, [UnitTest(kind="assert", code=code)], 12, seed=0)
    assert sorted(made.texts[: len(texts)]) == texts
    assert len(made.texts) == 12
    shells = {(text.split("g(")[0], text.split(")", 1)[1]) for text in texts}
    assert {(text.split("g(")[0], text.split(")", 1)[1]) for text in made.texts} == shells
    check = "\n".join(f"    {line}" for line in code.replace("g(", "candidate(").split("\n"))
    of_check = generate_inputs(problem, [UnitTest(kind="check", code=f"def check(candidate):\n{check}\n")], 12, seed=0)
    assert of_check.texts == made.texts


PROBLEMS = {
    "avg": (
        "assert abs(avg([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3]) - 0.12) < 1e-6",
        [
            "def avg(xs): return max(xs) / 2 if xs else 0.0\n",
            "def avg(xs):\n    return max(xs) / 2 if xs else 0.0\n",
            "def avg(xs): return sum(xs) / len(xs) if xs else 0.0\n",
            "import math\ndef avg(xs): return math.fsum(xs) / len(xs) if xs else 0.0\n",
            "def avg(xs): return sum(x / len(xs) for x in xs) + 0.0\n",
        ],
    ),
    "g": (
        "assert list(g(3)) == [0, 1, 2]",
        [
            "def g(n): return range(n + 1)\n",
            "def g(n): yield from range(n)\n",
            "def g(n):\n    for i in range(n): yield i\n",
        ],
    ),
    "bare": (
        "assert next(x for x in bare(3)) == 0",
        ["def bare(n): return iter(range(n))\n", "def bare(n): yield from range(n)\n", "def bare(n): return range(1, n)\n"],
    ),
    "make": (
        "assert make(1).v == 1",
        [
            "class A:\n    def __init__(self, v): self.v = -v - 9\ndef make(x): return A(x)\n",
            "class A:\n    def __init__(self, v): self.v = v\ndef make(x): return A(x)\n",
            "class B:\n    def __init__(self, v): self.v = v\ndef make(x): return B(x)\n",
        ],
    ),
}


def choices(tmp_path, judging=None):
    """The position that `--by agreement` chooses in each problem."""
    rows = [
        CandidateGroup(
            problem_id=name,
            prompt=f"Write {name}.",
            tests=[UnitTest(kind="assert", code=code)],
            entry_point=name,
            candidates=[Candidate(program=program, source="student", model="m") for program in programs],
        ).to_row()
        for name, (code, programs) in PROBLEMS.items()
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / f"s{judging is None}.jsonl"
    config = SelectConfig(by=["agreement"], public_tests=1, num_inputs=8)
    summary = run_select(SelectArguments(str(tmp_path / "c.jsonl"), str(output)), config, judging)
    rows = map(json.loads, output.read_text().splitlines())
    return summary, {row["problem_id"]: row["selection"]["index"] for row in rows}


def test_the_right_programs_agree_whatever_they_return(tmp_path):
    summary, chosen = choices(tmp_path)
    assert chosen == {"avg": 2, "g": 1, "bare": 0, "make": 1}
    assert summary.silent == {"agreement": 1}  # of `bare` it says nothing: two of three values have no text
    assert summary.table()["problems without generated inputs"] == 1


def test_without_a_tolerance_the_last_bit_counts(tmp_path):
    assert choices(tmp_path, JudgeConfig(number_tolerance=0))[1]["avg"] == 0
