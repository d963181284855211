"""The page of an evaluation, opened and read in a headless browser where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trl_rrtf import ConfigError, EvaluateArguments, JudgeConfig, SamplingConfig, run_evaluate

pytest.importorskip("matplotlib")

HOSTILE = 'def f():\n    return "</pre><script>document.title = 1</script>"\n'


class ListSampler:
    """The first candidate passes, the second is a page in disguise, the third does not compile; hotter, all pass."""

    def __init__(self):
        self.temperatures = []

    def sample(self, prompts, draws):
        self.temperatures.append(draws.temperature)
        right = "```python\ndef f():\n    return 7\n```"
        texts = [right, f"```python\n{HOSTILE}```", "```python\ndef f(:\n```"] if draws.temperature < 1 else [right] * 3
        return [texts[: len(row)] for row in draws.seeds]


@pytest.fixture
def evaluated(tmp_path, tiny_model_dir):
    problems = tmp_path / "problems.jsonl"
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": "Return <seven> & nothing else.",
            "tests": [{"kind": "assert", "code": "assert f() == 7"}],
            "entry_point": "f",
            "reference_solution": "def f():\n    return 7\n",
        }
        for i in range(3)
    ]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = tmp_path / "evaluation.html"
    arguments = EvaluateArguments(
        str(problems), str(tmp_path / "evaluation.json"), k=[1, 3], k_temperatures=[0.2, 1.2], page=str(page)
    )
    sampler = ListSampler()
    summary = run_evaluate(arguments, SamplingConfig(str(tiny_model_dir), num_generations=3), JudgeConfig(), sampler)
    assert set(sampler.temperatures) == {0.2, 1.2}
    return summary, json.loads((tmp_path / "evaluation.json").read_text()), page


class Reader(HTMLParser):
    """Texts by the class of their element."""

    def __init__(self, text):
        super().__init__()
        self.found, self._open = {}, None
        self.links = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self._open = attributes.get("class", tag)
        self.found.setdefault(self._open, []).append("")
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.found[self._open][-1] += data


def test_each_k_has_the_candidates_of_its_temperature(evaluated):
    summary, result, _ = evaluated
    assert summary.pass_at_k[1].mean == pytest.approx(1 / 3)
    assert summary.pass_at_k[3].mean == 1.0
    assert result["problems"][0] == {"problem_id": "p/0", "n": 6, "c": 4, "at": {"1": {"n": 3, "c": 1}, "3": {"n": 3, "c": 3}}}
    assert result["outcomes"]["passed"] == 12


def test_the_page_shows_every_candidate_beside_its_verdict_and_needs_no_network(evaluated):
    check(evaluated[2].read_text())


def test_the_page_in_a_headless_browser(evaluated, tmp_path):
    """Scripts run there: a candidate that is a script must stay text."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options = ["--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}"]
    command = [browser, *options, "--dump-dom"]
    done = subprocess.run([*command, evaluated[2].as_uri()], capture_output=True, text=True, timeout=120, check=True)
    check(done.stdout)
    assert "<title>Evaluation of" in done.stdout


def check(page):
    reader = Reader(page)
    assert [text.strip() for text in reader.found["problem"]] == [""] * 3
    assert [text.strip() for text in reader.found["prompt"]] == ["Return <seven> & nothing else."] * 3
    assert [text.strip() for text in reader.found["program"]].count(HOSTILE.strip()) == 3
    assert reader.found["outcome"] == ["passed", "failed", "compile_error"] * 3
    assert "drawn 4 times" in page
    assert any("33.3 %" in cell for cell in reader.found["td"])
    assert len(reader.links) == 2
    assert all(link.startswith("data:image/png;base64,") for link in reader.links)


def test_settings_of_the_page_and_of_the_temperatures_are_checked():
    with pytest.raises(ConfigError, match=r"`page`: expected a name that ends in \.html"):
        EvaluateArguments("humaneval", "e.json", page="e.pdf")
    with pytest.raises(ConfigError, match="expected one temperature for each of the 2 values of `k`"):
        EvaluateArguments("humaneval", "e.json", k=[1, 10], k_temperatures=[0.2])


def test_the_template_is_part_of_the_package():
    import trl_rrtf.evaluation.page as page

    assert Path(page.__file__).with_name("page.html").exists()
