"""What is pushed to the Hub, against a stand-in of its HTTP API: ranked groups and their data card."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pyarrow.parquet
import pytest

from tests.conftest import ranked_row
from tests.hub_stub import HubStub

PUSH_DATA = "import sys; from trl_rrtf import push_ranked_groups; print(push_ranked_groups(*sys.argv[1:], license='mit'))"


@pytest.fixture
def hub():
    stub = HubStub()
    yield stub
    stub.close()


PUSH_AND_FAIL = """
import sys
from trl_rrtf import OutputError, push_ranked_groups
try:
    push_ranked_groups(*sys.argv[1:])
except OutputError as error:
    print(error)
"""


def run(hub, code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=hub.environment(), timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_ranked_groups_are_pushed_with_a_data_card(hub, tmp_path):
    rows = [ranked_row(2 + i % 3, seed=i) for i in range(5)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.jsonl.settings.json").write_text(json.dumps({"teacher_bonus": 0.25}))
    summary = {"kept": 5, "dropped": {"teacher below student": 2}, "judge": {"timeout": 7.0}}
    (tmp_path / "r.jsonl.summary.json").write_text(json.dumps(summary))
    assert run(hub, PUSH_DATA, tmp_path / "r.jsonl", "me/ranked").strip() == f"{hub.endpoint}/datasets/me/ranked"
    files = hub.repos["datasets/me/ranked"]
    (data,) = (content for name, content in files.items() if name.endswith(".parquet"))
    got = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    assert [row["completions"] for row in got] == [row["completions"] for row in rows]
    assert [row["scores"] for row in got] == [row["scores"] for row in rows]
    card = files["README.md"].decode()
    assert "license: mit" in card
    assert "| groups | 5 |" in card
    assert "| candidates | 14 (2 to 4 per group) |" in card
    assert "| candidates of source `teacher` | 5 |" in card
    for line in ("| `teacher_bonus` | 0.25 |", "| kept | 5 |", "| dropped: teacher below student | 2 |", "| `timeout` | 7.0 |"):
        assert line in card, card
    assert {"outcomes.png", "score_gaps.png"} <= set(files)


def test_a_push_that_the_hub_refuses_says_what_to_do(hub, tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps(ranked_row(2)))
    hub.fail = True
    said = run(hub, PUSH_AND_FAIL, tmp_path / "r.jsonl", "me/ranked")
    assert said.startswith("`me/ranked` on the Hub cannot be written")
    assert "nothing of it is uploaded, run the same command again" in said
    assert hub.repos["datasets/me/ranked"] == {}
