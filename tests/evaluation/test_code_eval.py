"""The `evaluate` metric: inputs and outputs of `code_eval`."""

from __future__ import annotations

import pytest

evaluate = pytest.importorskip("evaluate")

from trl_rrtf import JudgeError  # noqa: E402
from trl_rrtf.evaluation import code_eval  # noqa: E402

REFERENCES = ["assert add(2, 3) == 5", "def check(f):\n    assert f(1) == 2\ncheck(inc)"]
PREDICTIONS = [
    ["def add(a, b): return a * b", "def add(a, b): return a + b"],
    ["def inc(x): return x + 1", "def inc(x): return x + 1\nprint('x')", "def inc(x)"],
]


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    """As a user loads it: from its file, with no network."""
    return evaluate.load(code_eval.__file__, cache_dir=str(tmp_path_factory.mktemp("metrics")))


def test_it_gives_what_code_eval_gives(metric):
    pass_at_k, results = metric.compute(references=REFERENCES, predictions=PREDICTIONS, k=[1, 2, 3], num_workers=2, timeout=3.0)
    assert pass_at_k == pytest.approx({"pass@1": (1 / 2 + 2 / 3) / 2, "pass@2": 1.0})
    assert [[(number, result["passed"]) for number, result in results[task]] for task in (0, 1)] == [
        [(0, False), (1, True)],
        [(0, True), (1, True), (2, False)],
    ]
    assert results[0][1] == (1, {"task_id": 0, "passed": True, "result": "passed", "completion_id": 1})
    assert results[1][2][1]["result"].startswith("failed: SyntaxError")


def test_a_reference_cannot_be_met_by_leaving_early(metric):
    pass_at_k, _ = metric.compute(references=REFERENCES[:1], predictions=[["import sys\nsys.exit(0)"]], k=[1])
    assert pass_at_k == {"pass@1": 0.0}


def test_a_failure_of_the_judge_is_an_error_and_no_zero(metric, monkeypatch):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(JudgeError, match="candidate 0 of problem 0 could not be judged"):
        metric.compute(references=REFERENCES[:1], predictions=[["x = 1"]], k=[1])
