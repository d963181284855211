"""Two evaluations side by side: differences, McNemar's test, who solves what."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from trl_rrtf import CompareArguments, ConfigError, LoadError, run_compare
from trl_rrtf.cli import main
from trl_rrtf.evaluation.statistics import mcnemar, mean_with_interval, paired_difference


def write_result(path, solved, temperature=0.0, k=1):
    problems = [{"problem_id": f"p/{i}", "n": 1, "c": int(passes)} for i, passes in enumerate(solved)]
    result = {
        "pass@k": {f"pass@{k}": dataclasses.asdict(mean_with_interval(solved))},
        "problems": problems,
        "settings": {"model": path.stem, "num_generations": 1, "temperature": temperature},
        "judge": {"timeout": 5.0, "memory_mb": 1024},
    }
    path.write_text(json.dumps(result))
    return str(path)


def test_who_solves_what(tmp_path, capsys):
    first = write_result(tmp_path / "base.json", [1, 1, 0, 0, 0, 0, 0, 0])
    second = write_result(tmp_path / "trained.json", [1, 0, 1, 1, 1, 1, 1, 0])
    output = tmp_path / "difference.json"
    assert main(["compare", first, second, "--output", str(output)]) == 0
    comparison = json.loads(output.read_text())
    assert comparison["models"] == ["base", "trained"]
    assert comparison["solved by"] == {
        "both": ["p/0"],
        "first alone": ["p/1"],
        "second alone": ["p/2", "p/3", "p/4", "p/5", "p/6"],
        "neither": ["p/7"],
    }
    difference = comparison["pass@k"]["pass@1"]["difference"]
    assert difference["mean"] == pytest.approx(4 / 8)
    assert -0.25 <= difference["low"] < difference["mean"] < difference["high"] <= 1
    assert comparison["p (McNemar)"] == pytest.approx(2 * (1 + 6) / 2**6)
    assert comparison["settings that differ"] == {}
    assert "p/1" in capsys.readouterr().out


def test_unlike_settings_are_named(tmp_path):
    first = write_result(tmp_path / "a.json", [1, 0])
    second = write_result(tmp_path / "b.json", [1, 0], temperature=0.8)
    assert run_compare(CompareArguments(first, second)).table()["not a fair comparison"] == "temperature: 0.0 and 0.8"


def test_results_that_cannot_be_compared_are_refused(tmp_path):
    first = write_result(tmp_path / "a.json", [1, 0])
    with pytest.raises(ConfigError, match=r"other problems \(1 are in one of them alone, such as p/2\)"):
        run_compare(CompareArguments(first, write_result(tmp_path / "b.json", [1, 0, 1])))
    with pytest.raises(ConfigError, match="share no k"):
        run_compare(CompareArguments(first, write_result(tmp_path / "c.json", [1, 0], k=10)))
    with pytest.raises(LoadError, match="`second`: cannot read"):
        run_compare(CompareArguments(first, str(tmp_path / "nothing.json")))
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(LoadError, match="is no result of `trl-rrtf evaluate`"):
        run_compare(CompareArguments(first, str(tmp_path / "d.json")))


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (3, 9), (5, 5), (40, 17)])
def test_mcnemar_agrees_with_the_binomial_test(only_first, only_second):
    stats = pytest.importorskip("scipy.stats")
    total = only_first + only_second
    expected = stats.binomtest(only_first, total).pvalue if total else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected)
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first)


def test_mcnemar_has_no_largest_number_of_problems():
    """2^1024 is no float."""
    assert mcnemar(700, 700) == 1.0
    assert 0 < mcnemar(640, 760) < 0.01
    assert mcnemar(0, 2000) == 0.0 < mcnemar(0, 1000)


def test_thousands_of_problems_are_compared(tmp_path):
    """Where 1,024 or more are solved by one model alone, the test's numbers are larger than a float can be."""
    first = write_result(tmp_path / "a.json", [1, 0] * 1000)
    second = write_result(tmp_path / "b.json", [0, 1] * 1000)
    assert run_compare(CompareArguments(first, second)).p_value == 1.0


def test_a_comparison_does_not_overwrite_a_result(tmp_path):
    first, second = (write_result(tmp_path / f"{name}.json", [1, 0]) for name in "ab")
    before = (tmp_path / "a.json").read_bytes()
    with pytest.raises(ConfigError, match=r"`output`: .* would overwrite what `first` names"):
        run_compare(CompareArguments(first, second, output=first))
    assert (tmp_path / "a.json").read_bytes() == before


def test_a_result_without_the_judges_settings_is_compared(tmp_path):
    first, second = (write_result(tmp_path / f"{name}.json", [1, 0]) for name in "ab")
    result = json.loads((tmp_path / "b.json").read_text())
    del result["judge"]
    (tmp_path / "b.json").write_text(json.dumps(result))
    assert "judge: timeout" in run_compare(CompareArguments(first, second)).different_settings


def test_the_interval_of_a_share_is_about_that_of_the_normal_approximation():
    values = [1] * 60 + [0] * 140
    interval = mean_with_interval(values)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 200)
    assert interval.mean == pytest.approx(0.3)
    assert interval.low == pytest.approx(0.3 - half, abs=0.01)
    assert interval.high == pytest.approx(0.3 + half, abs=0.01)


def test_a_paired_interval_is_narrower_than_the_models_own():
    first = [i % 3 == 0 for i in range(90)]
    second = [value or i < 10 for i, value in enumerate(first)]
    paired = paired_difference(list(map(float, first)), list(map(float, second)))
    own = mean_with_interval(list(map(float, first)))
    assert paired.low > 0
    assert paired.high - paired.low < own.high - own.low
