"""Rows of every published format: they load, round-trip, their reference passes, a broken program does not."""

from __future__ import annotations

import base64
import codecs
import json
import pickle
import zlib
from pathlib import Path

import pytest

from trl_rrtf import Judge, LoadError, Outcome, Problem, RowError, load_problems
from trl_rrtf.problems import SkippedRows, check_problems, iterate_problems
from trl_rrtf.problems.formats import FORMATS
from trl_rrtf.rows.public_tests import public_tests

FIXTURES = Path(__file__).with_name("fixtures")
WITHOUT_REFERENCE = {
    "livecodebench": [
        "class Solution:\n    def at(self, xs: List[int], i: int) -> int:\n        return xs[i]\n",
        "print(sum(map(int, input().split())))\n",
    ]
}
WITHOUT_TESTS = {"codealpaca"}
NAMES = sorted(path.stem for path in FIXTURES.glob("*.jsonl"))


def rows(name):
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_there_is_a_fixture_for_every_format():
    told = {
        next((key for key, entry in FORMATS.items() if entry.columns <= set(row)), None) for name in NAMES for row in rows(name)
    }
    assert told == {*FORMATS, None}, "None: rows of our own"


@pytest.fixture(scope="module")
def judge():
    with Judge() as judge:
        yield judge


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_TESTS))
def test_rows_round_trip_and_only_a_right_program_passes(judge, name):
    problems = load_problems(str(FIXTURES / f"{name}.jsonl"))
    assert len(problems) == len(rows(name))
    references = WITHOUT_REFERENCE.get(name) or [problem.reference_solution for problem in problems]
    for problem, reference in zip(problems, references, strict=True):
        assert Problem.from_row(problem.to_row(), "here") == problem
        assert problem.problem_id not in ("", "/")
        verdict = judge.judge(problem, reference)
        assert verdict.outcome is Outcome.PASSED, verdict
        broken = judge.judge(problem, reference.replace("return ", "return None and ").replace("print(", "print('no', "))
        assert broken.outcome < Outcome.PASSED


def test_problems_without_tests_load_only_where_they_are_asked_for():
    path = str(FIXTURES / "codealpaca.jsonl")
    first, second = iterate_problems(path, require_tests=False)
    assert (first.tests, second.prompt) == ([], "Sort this list.\n[3, 1]")
    assert first.problem_id != second.problem_id
    with pytest.raises(RowError, match=r"codealpaca.jsonl, line 1: the row has no test"):
        load_problems(path)


def test_tacos_rows_of_one_name_are_told_apart_by_their_content(tmp_path):
    """The published file has many such rows; one without a name is told by its content alone."""
    (row,) = rows("taco")[:1]
    other = {**row, "question": "Read a line, print it."}
    nameless = {**other, "name": None}
    problems = load_problems(write(tmp_path / "p.jsonl", row, other, nameless))
    ids = [problem.problem_id for problem in problems]
    assert len(set(ids)) == 3
    assert all(problem_id.startswith("codeforces/join two lines-") for problem_id in ids[:2])
    assert load_problems(write(tmp_path / "q.jsonl", nameless, row))[1].problem_id == ids[0], "wherever the row stands"


def test_the_method_of_a_solution_is_what_leetcodes_tests_call():
    (problem,) = load_problems(str(FIXTURES / "leetcode.jsonl"))
    assert problem.entry_point == "Solution"
    assert "def longestWord(self" in problem.prompt


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("apps", {"input_output": "{"}, "line 1, column `input_output`: not JSON"),
        ("apps", {"input_output": "{}"}, "line 1: the row has no test"),
        ("apps", {"question": None}, "line 1: a column has another content"),
        ("mbpp", {"test_list": [], "challenge_test_list": []}, "line 1, column `test_list`: the list is empty"),
        ("mbpp", {"code": "def f("}, "line 1: `code`, `test_list` or the setup code does not parse"),
        ("humaneval_x", {"declaration": "int last("}, "line 1, column `declaration`: it does not parse"),
        ("leetcode", {"entry_point": "longest"}, r"line 1, column `entry_point`: expected `Class\(\).method`"),
        ("codereval", {"level": "project_runnable"}, "line 1, column `level`: only self_contained and slib_runnable"),
        ("codereval", {"test": None}, "line 1: the row has no test"),
        ("humaneval", {"test": None}, "line 1: the `code` of a test is no text: nothing"),
        ("humaneval", {"task_id": 1}, "line 1: the problem's name is no text: int 1"),
        ("code_contests", {"description": None}, "line 1: the statement is no text: nothing"),
        ("apps", {"question": " "}, "line 1: the statement is empty"),
        ("apps", {"solutions": "[1]"}, "line 1: the reference solution is no text: int 1"),
        (
            "code_contests",
            {"public_tests": {"input": ["1"], "output": []}},
            "column `public_tests`: unequal lists: 1 inputs and 0",
        ),
        ("code_contests", {"public_tests": None, "private_tests": None, "generated_tests": None}, "the row has no test"),
        ("livecodebench", {"private_test_cases": "!!"}, "column `private_test_cases`: neither JSON nor packed JSON"),
    ],
)
def test_rows_that_break_their_format_are_named(tmp_path, name, change, message):
    with pytest.raises(RowError, match=message):
        load_problems(write(tmp_path / "p.jsonl", {**rows(name)[0], **change}), skip_unusable=False)


def test_a_packed_test_that_would_run_code_is_refused(tmp_path):
    packed = base64.b64encode(zlib.compress(pickle.dumps(Path("x")))).decode()
    with pytest.raises(RowError, match=r"it holds pathlib\.\w+, and only text is read"):
        load_problems(
            write(tmp_path / "p.jsonl", {**rows("livecodebench")[0], "private_test_cases": packed}), skip_unusable=False
        )


def apps(number, starter="", reference="", **cases):
    """A row of APPS with these `input_output` columns."""
    return {
        "problem_id": number,
        "question": f"Question {number}.",
        "solutions": json.dumps([reference] if reference else []),
        "input_output": json.dumps(cases) if cases else "",
        "difficulty": "introductory",
        "url": "",
        "starter_code": starter,
    }


LONG = "7" * 5_000
METHOD = "class Solution:\n    def add(self, a: int, b: int = 2) -> int:\n        "
UNUSABLE = {
    "no test": (apps(1), "the row has no test, so its candidates cannot be judged"),
    "empty lists": (apps(1, inputs=[], outputs=[]), "the row has no test, so its candidates cannot be judged"),
    "not JSON": ({**apps(1), "input_output": "{"}, "`input_output`: not JSON"),
    "no object": ({**apps(1), "input_output": "[1]"}, "`input_output`: no object with `inputs` and `outputs`"),
    "an integer of 5,000 digits": (
        {**apps(1), "input_output": f'{{"fn_name": "f", "inputs": [[{LONG}]], "outputs": [1]}}'},
        "`input_output`: a number has more digits than Python reads",
    ),
    "an infinite number": (
        {**apps(1), "input_output": '{"fn_name": "f", "inputs": [[Infinity]], "outputs": [1]}'},
        "`input_output`: not JSON",
    ),
    "nested 100,000 deep": (
        {**apps(1), "input_output": "[" * 100_000 + "]" * 100_000},
        "`input_output`: nested too deeply to be read",
    ),
    "a number as output": (
        apps(1, inputs=["1\n"], outputs=[1]),
        "`outputs`: standard input or output is neither text nor a list of lines",
    ),
    "numbers as lines": (
        apps(1, inputs=[[1, 2]], outputs=["3"]),
        "`inputs`: standard input or output is neither text nor a list of lines",
    ),
    "more inputs than outputs": (apps(1, inputs=["1\n", "2\n"], outputs=["1\n"]), "`input_output`: unequal lists"),
    "more calls than results": (apps(1, fn_name="f", inputs=[[1], [2]], outputs=[1]), "`input_output`: unequal lists"),
    "arguments that are text": (apps(1, fn_name="f", inputs=["12"], outputs=[1]), "the arguments of a call are no list"),
    "a function whose name is none": (apps(1, fn_name="a-b", inputs=[[1]], outputs=[1]), "the name of the function is no name"),
    "inputs that are no list": (apps(1, inputs={"a": 1}, outputs=["1"]), "`input_output`: `inputs` is no list"),
    "no question": ({**apps(1, inputs=["1"], outputs=["1"]), "question": None}, "a column has another content"),
    "two methods, and none is named": (
        apps(1, METHOD + "pass\n    def sub(self, a):\n        ", inputs=[[1]], outputs=[1]),
        "`starter_code`: no `fn_name`, and `class Solution` has not one method to call",
    ),
    "a method, and input for a whole program": (
        apps(1, METHOD, inputs=["3 4\n"], outputs=["7\n"]),
        "`input_output`: no `fn_name`, and the inputs do not fit `Solution().add`",
    ),
    "a method, and lines for a whole program": (
        apps(1, METHOD, inputs=[["3", "4"]], outputs=["7"]),
        "`input_output`: no `fn_name`, and the inputs do not fit `Solution().add`",
    ),
    "a method, and too many arguments": (
        apps(1, METHOD, inputs=[[1, 2, 3]], outputs=[6]),
        "`input_output`: no `fn_name`, and the inputs do not fit `Solution().add`",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_odd_row_of_a_published_file_is_passed_over_and_counted(tmp_path, caplog, case):
    odd, reason = UNUSABLE[case]
    good = [apps(number, inputs=["1\n"], outputs=["2\n"]) for number in (2, 3)]
    path = write(tmp_path / "p.jsonl", good[0], odd, good[1])
    assert [problem.problem_id for problem in load_problems(path)] == ["APPS/2", "APPS/3"]
    assert list(iterate_problems(path)) == load_problems(path)
    (record,) = caplog.records  # however often the file is read
    assert record.levelname == "WARNING"
    assert f"`{path}`: rows that are no problems are passed over, 1 of 3: 1 for " in record.message
    assert reason in record.message
    assert f"(first: {path}, line 2" in record.message
    with pytest.raises(RowError, match=r"p\.jsonl, line 2"):
        load_problems(path, skip_unusable=False)
    alone = write(tmp_path / "alone.jsonl", odd)
    with pytest.raises(LoadError, match=r"no problem that can be used, 1 rows were passed over: 1 for .*line 1"):
        load_problems(alone)


def test_the_reasons_are_counted_each_for_itself(tmp_path, caplog):
    good = apps(0, inputs=["1\n"], outputs=["2\n"])
    odd = [{**row, "problem_id": number} for number, (row, _) in enumerate([*UNUSABLE.values()][:3] * 2, start=1)]
    path, skipped = write(tmp_path / "p.jsonl", good, *odd), SkippedRows()
    assert check_problems(path, skipped=skipped) == 1
    assert skipped.reasons == {"the row has no test, so its candidates cannot be judged": 4, "`input_output`: not JSON": 2}
    assert "passed over, 6 of 7: 4 for the row has no test" in caplog.text
    assert check_problems(path, require_tests=False) == 5, "those without tests are problems, where tests are not asked for"


def test_the_limit_counts_problems(tmp_path):
    rows = [apps(1), *(apps(number, inputs=["1\n"], outputs=["2\n"]) for number in (2, 3, 4))]
    path = write(tmp_path / "p.jsonl", *rows)
    assert [problem.problem_id for problem in iterate_problems(path, limit=2)] == ["APPS/2", "APPS/3"]


def test_own_rows_and_curated_benchmarks_are_strict_unless_it_is_asked_for(tmp_path):
    own = {"problem_id": "a", "prompt": "p", "tests": [{"kind": "assert", "code": "assert 1"}]}
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join([json.dumps(own), '{"a": ' + LONG + "}", json.dumps({**own, "problem_id": 7}), '{"b": 1}']))
    with pytest.raises(RowError, match=r"own\.jsonl, line 2: a number is too long"):
        load_problems(str(path))
    assert [problem.problem_id for problem in load_problems(str(path), skip_unusable=True)] == ["a"]
    humaneval = write(tmp_path / "h.jsonl", rows("humaneval")[0], {**rows("humaneval")[1], "prompt": None})
    with pytest.raises(RowError, match=r"h\.jsonl, line 2"):
        load_problems(humaneval)
    assert len(load_problems(humaneval, skip_unusable=True)) == 1


def test_copies_in_a_published_file_are_passed_over_and_other_problems_of_one_id_refused(tmp_path, caplog):
    (row,) = rows("taco")[:1]
    others = [{**row, "question": "Another."}, {**row, "starter_code": "# Begin here."}]
    path = write(tmp_path / "p.jsonl", row, {**row, "url": "another"}, *others)
    assert len({problem.problem_id for problem in load_problems(path)}) == 3
    assert "1 for a copy of an earlier row, with the same id and statement" in caplog.text
    row = apps(1, inputs=["1\n"], outputs=["2\n"])
    with pytest.raises(RowError, match=r"'APPS/1' is the id of another problem too"):
        load_problems(write(tmp_path / "q.jsonl", row, {**row, "question": "Another."}))


@pytest.mark.parametrize("name", ["apps", "taco", "livecodebench", "humaneval", "problem_rows"])
def test_a_byte_order_mark_is_taken(tmp_path, name):
    (tmp_path / "p.jsonl").write_bytes(codecs.BOM_UTF8 + (FIXTURES / f"{name}.jsonl").read_bytes())
    assert load_problems(str(tmp_path / "p.jsonl")) == load_problems(str(FIXTURES / f"{name}.jsonl"))


def livecodebench(starter, *cases, **metadata):
    return {
        "question_id": "1",
        "question_content": "Add.",
        "starter_code": starter,
        "public_test_cases": json.dumps([dict(zip(("input", "output", "testtype"), case, strict=True)) for case in cases]),
        "private_test_cases": "[]",
        "metadata": json.dumps(metadata),
    }


@pytest.mark.parametrize(
    ("row", "total"),
    [
        (apps(1, METHOD, inputs=[[1, 2], [3]], outputs=[3, [5]]), 2),
        (apps(1, METHOD, inputs=["1\n2", "3\n4\n"], outputs=["3", "7\n"]), 2),
        (apps(1, "#User code\n\nclass Solution:\n\tdef add(self, a,b):\n\t\t# code here", inputs=[[1, 2]], outputs=[3]), 1),
        (livecodebench(METHOD, ("1\n2", "3", "functional")), 1),
        (livecodebench(METHOD, ("1\n2", "3", "stdin"), ("3\n5", "8", "stdin")), 2),
    ],
)
def test_a_method_that_nobody_names_is_taken_from_the_starter_code(judge, tmp_path, row, total):
    (problem,) = load_problems(write(tmp_path / "p.jsonl", row))
    assert problem.entry_point == "Solution"
    solution = "class Solution:\n    def add(self, a, b=2):\n        return a + b\n"
    verdict = judge.judge(problem, solution)
    assert (verdict.outcome, verdict.total) == (Outcome.PASSED, total)
    assert judge.judge(problem, solution.replace("+", "-")).outcome is Outcome.FAILED


@pytest.mark.parametrize("name", ["code_contests", "livecodebench"])
def test_public_tests_come_first_and_are_counted(name, tmp_path):
    for row, problem in zip(rows(name), load_problems(str(FIXTURES / f"{name}.jsonl")), strict=True):
        written = json.loads(row["public_test_cases"]) if name == "livecodebench" else row["public_tests"]["input"]
        assert problem.extra["public_tests"] == len(written) > 0
        assert len(public_tests(problem)) == len(written) < len(problem.tests)


def test_a_livecodebench_function_that_nothing_names_is_told(tmp_path):
    with pytest.raises(RowError, match="column `metadata`: no `func_name`, and no `class Solution`"):
        load_problems(write(tmp_path / "p.jsonl", livecodebench("", ("1\n2", "3", "functional"))), skip_unusable=False)


def test_text_arguments_need_a_parameter_that_takes_text(tmp_path):
    starter = "class Solution:\n    def size(self, text: str) -> int:\n        "
    (problem,) = load_problems(write(tmp_path / "p.jsonl", apps(1, starter, inputs=[["ab"]], outputs=[2])))
    assert problem.tests[0].code == "assert Solution().size('ab') == 2"


PROGRAMS_WITHOUT_IMPORTS = {
    "livecodebench": [
        (livecodebench("", ("5\n", "120 8\n", "stdin")), "print(factorial(int(stdin.readline())), pow(2, 7, 10))\n"),
        (
            livecodebench("", ("3000\n", "3000\n", "stdin")),
            "def f(n):\n    return n and 1 + f(n - 1)\nprint(f(int(input())))\n",
        ),
        (
            livecodebench(METHOD, ("1\n2", "3", "functional"), func_name="add"),
            "class Solution:\n    @lru_cache(None)\n    def add(self, a: Optional[int], b: int) -> int:\n"
            "        heap = [a, b]\n        heapify(heap)\n        return sum(accumulate(heap)) - a if a < b else math.inf\n",
        ),
    ],
    "apps": [
        (
            apps(1, inputs=["3 5\n"], outputs=["1 2\n"]),
            "a, b = map(int, stdin.readline().split())\nprint(gcd(a, b), floor(2.5))\n",
        ),
        (apps(1, inputs=["ab\n"], outputs=["1\n"]), "stdout.write(str(Counter(input())['a']))\n"),
        (
            apps(1, fn_name="total", inputs=[[[1, 2]]], outputs=[3]),
            "def total(xs: List[int]) -> int:\n    return list(itertools.accumulate(xs))[-1]\n",
        ),
        (
            apps(1, METHOD, fn_name="add", inputs=[[1, 2]], outputs=[3]),
            "class Solution:\n    def add(self, a: Optional[int], b: int) -> int:\n        return sum(deque([a, b]))\n",
        ),
    ],
}


@pytest.mark.parametrize("name", PROGRAMS_WITHOUT_IMPORTS)
def test_what_the_official_graders_import_need_not_be_imported(judge, tmp_path, name):
    for row, program in PROGRAMS_WITHOUT_IMPORTS[name]:
        (problem,) = load_problems(write(tmp_path / "p.jsonl", row))
        verdict = judge.judge(problem, program)
        assert verdict.outcome is Outcome.PASSED, (program, verdict)
        assert Problem.from_row(problem.to_row(), "here") == problem


def test_an_import_is_no_solution(judge, tmp_path):
    """A program that defines nothing must not pass by what was imported for it."""
    (problem,) = load_problems(write(tmp_path / "p.jsonl", apps(1, fn_name="gcd", inputs=[[4, 6]], outputs=[2])))
    assert judge.judge(problem, "pass\n").outcome < Outcome.PASSED
    assert judge.judge(problem, "def gcd(a, b):\n    return gcd(b, a % b) if b else a\n").outcome is Outcome.PASSED


def test_a_deep_recursion_allowed_to_candidates_does_not_harm_the_judge(judge, tmp_path):
    row = livecodebench("class Solution:\n    def at(self, x: int) -> int:\n        ", ("1", "[1]", "functional"))
    (problem,) = load_problems(write(tmp_path / "p.jsonl", row))
    head = "class Solution:\n    def at(self, x):\n"
    for body in (
        "        v = []\n        for _ in range(40000):\n            v = [v]\n        return v\n",
        "        return self.at(x)\n",
        "        return sorted([self.at(x)], key=self.at)\n",
    ):
        verdict = judge.judge(problem, head + body)
        assert Outcome.COMPILE_ERROR < verdict.outcome < Outcome.PASSED, verdict
    assert judge.judge(problem, f"{head}        return [x]\n").outcome is Outcome.PASSED


def test_a_leetcode_problem_may_import_what_leetcode_has(judge, tmp_path):
    pytest.importorskip("sortedcontainers")
    (row,) = rows("leetcode")
    row["prompt"] += "from sortedcontainers import SortedList\n"
    row["completion"] = row["completion"].replace("max(words, key=len)", "SortedList(words, key=len)[-1]")
    (problem,) = load_problems(write(tmp_path / "p.jsonl", row))
    assert judge.judge(problem, problem.reference_solution).outcome is Outcome.PASSED
