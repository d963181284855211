"""The experiment's report: seeds are averaged problem by problem, differences are paired."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2-135m"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("report", RECIPE / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def validated(score):
    return {"validation": {"pass@k": {"pass@1": {"mean": score}}}}


@pytest.fixture
def folder(tmp_path):
    """Two methods on four problems; `rrtf` with two seeds, and one learning rate that was only tried."""
    rows = [
        {
            "scores": [3.25, 2.5, 0.0, 3.0],
            "outcomes": ["passed", "partial", "compile_error", "passed"],
            "sources": ["reference", "student", "student", "student"],
        }
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = [("base", None, 0, [0, 10, 5, 5]), ("rrtf", 1e-4, 0, [10, 10, 5, 5]), ("rrtf", 1e-4, 1, [4, 10, 5, 5])]
    for method, rate, seed, passed in runs:
        place = tmp_path / f"{method}-{seed}"
        run = {"method": method, "learning_rate": rate, "seed": seed, "test": {"mean_characters": 80.0 + seed}}
        run |= {"held_out_groups": {"ranking/accuracy": 0.5 + seed / 4}} if rate else {}
        run |= validated(0.4) if rate and seed == 0 else {}
        run |= {"curve": [{"step": 1, "loss": 2.0}], "tokens": 100, "train_seconds": 9.0} if rate else {}
        write(place / "result.json", run)
        write(place / "test.json", {"problems": [{"problem_id": str(i), "n": 10, "c": c} for i, c in enumerate(passed)]})
    write(tmp_path / "rrtf-low" / "result.json", {"method": "rrtf", "learning_rate": 1e-5, "seed": 0, **validated(0.3)})
    return tmp_path


def test_what_is_done_is_collected(report, folder):
    results = report.collect(folder)
    assert results["groups"] == {
        "groups": 1,
        "candidates": 4,
        "worse than the best, by outcome": {"partial": 1, "compile_error": 1},
        "passed, below the teacher by the tie rule": 1,
    }
    rrtf = results["methods"]["rrtf"]
    assert [run["passed"] for run in rrtf["runs"]] == [[10, 10, 5, 5], [4, 10, 5, 5]]
    assert rrtf["tried"] == {"0.0001": 0.4, "1e-05": 0.3}
    assert results["methods"]["base"]["tried"] == {}


def test_seeds_are_averaged_problem_by_problem(report, folder):
    results = report.collect(folder)
    assert report.rates(results["methods"]["rrtf"]) == pytest.approx([0.7, 1.0, 0.5, 0.5])
    assert report.rates(results["methods"]["rrtf"], 10) == [1.0, 1.0, 1.0, 1.0]
    first, second = report.table(results).splitlines()[2:]
    assert first.startswith("| `rrtf` | 0.0001 | 2 | 10 | 67.5 [")
    assert "| 0.625 |" in first
    assert "| 80 |" in second, "base has no seed but the first"


def test_differences_are_paired(report, folder):
    """+0.7 on one problem, 0 on the others: no draw of problems makes it negative."""
    (row,) = report.differences(report.collect(folder)).splitlines()[2:]
    assert row.startswith("| `rrtf` | +17.5 [+0.0, ")
    assert "| `rrtf` | 30.0% | 40.0% |" in report.tried(report.collect(folder))


def test_methods_are_compared_over_the_seeds_that_both_have(report):
    def trained(*seeds_and_passed):
        return {
            "runs": [
                {"seed": seed, "learning_rate": 1e-4, "samples": 10, "passed": passed} for seed, passed in seeds_and_passed
            ]
        }

    lucky_seed, other_seed = [10, 10, 10], [0, 0, 0]
    found = report.difference(trained((0, lucky_seed), (1, other_seed)), trained((0, lucky_seed)))
    assert found.mean == 0.0, "the seed that only one of them has says nothing"
    assert report.difference(trained((1, other_seed)), trained((0, lucky_seed))) is None


def test_exports_are_compared_problem_by_problem(report, folder):
    for name, passed in {"greedy": [1, 1, 1, 0], "greedy-int8": [1, 1, 0, 0]}.items():
        write(folder / "rrtf-0" / f"{name}.json", {"problems": [{"n": 1, "c": c} for c in passed]})
    (row,) = report.exports(report.collect(folder)).splitlines()[2:]
    assert row.startswith("| `rrtf` | 75.0 [")
    assert "| -25.0 [-75.0, +0.0] |" in row


def test_plots_are_drawn(report, folder, tmp_path):
    pytest.importorskip("matplotlib")
    report.draw(report.collect(folder), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_published_tables_are_those_of_the_published_results(report):
    results = json.loads((RECIPE / "results.json").read_text())
    page = (RECIPE.parent / "README.md").read_text()
    for part in (report.table, report.differences, report.tried, report.exports):
        assert part(results) in page
