"""The shared set of hostile and tricky programs, which lies beside the repository and not in it; skipped without it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import psutil
import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, Problem, UnitTest

SET = Path(__file__).parents[3] / "shared" / "adversarial.jsonl"
CANARY = Path("/tmp/adv_canary")
PORT = 45871
NAMES = {"pass": {"passed"}, "fail": {"failed"}, "timeout": {"runtime_error"}}
NO_PASS = {outcome.label for outcome in Outcome} - {"passed", "infrastructure"}

pytestmark = pytest.mark.skipif(not SET.exists(), reason="needs the shared set of adversarial programs beside the repository")


@pytest.fixture
def canaries(monkeypatch):
    """What the probes look for: files, servers and a token; afterwards nothing of it may have changed."""
    if CANARY.exists():
        pytest.skip(f"{CANARY} exists already")
    monkeypatch.setenv("HF_TOKEN", "hf_canary_SECRET")
    CANARY.mkdir()
    CANARY.chmod(0o777)
    for name, text in (("secret.txt", "hf_canary_SECRET"), ("victim.txt", "untouched")):
        (CANARY / name).write_text(text)
        (CANARY / name).chmod(0o666)
    home = set(os.listdir(Path.home()))
    with (
        socket.create_server(("127.0.0.1", PORT)) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract,
    ):
        datagrams.bind(("127.0.0.1", PORT))
        abstract.bind(b"\0adv_canary_sock")
        try:
            yield
            time.sleep(0.5)
            assert sorted(path.name for path in CANARY.iterdir()) == ["secret.txt", "victim.txt"]
            assert (CANARY / "victim.txt").read_text() == "untouched"
            assert set(os.listdir(Path.home())) == home
            for end in (stream.accept, lambda: datagrams.recv(1), lambda: abstract.recv(1)):
                for server in (stream, datagrams, abstract):
                    server.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    end()
        finally:
            for path in CANARY.iterdir():
                path.unlink()
            CANARY.rmdir()


def accepted(row):
    labels = set()
    for name in row["accept"]:
        labels |= NO_PASS if name == "must_not_pass" else NAMES.get(name, {name})
    return labels


def test_no_hostile_program_passes_and_every_right_one_does(canaries):
    rows = [json.loads(line) for line in SET.read_text().splitlines()]
    right = "def add(a, b):\n    return a + b\n"
    neighbour = Problem(problem_id="n", prompt="Add.", tests=[UnitTest(kind="assert", code="assert add(2, 3) == 5")])
    with Judge(JudgeConfig(timeout=3, num_workers=2)) as judge:
        if judge.isolation().missing():
            pytest.skip(f"this system does not contain programs: {judge.isolation().layers}")
        items = []
        for row in rows:
            test = UnitTest(kind="check", code=row["tests"]["check"])
            problem = Problem(problem_id=row["id"], prompt=row["prompt"], tests=[test], entry_point=row["entry_point"])
            items += [(problem, row["code"]), (neighbour, right)]
        verdicts = list(judge.judge_many(items))
    wrong = {
        row["id"]: (verdict, row["accept"])
        for row, verdict in zip(rows, verdicts[::2], strict=True)
        if verdict.outcome.label not in accepted(row)
    }
    assert not wrong
    late = {row["id"]: verdict for row, verdict in zip(rows, verdicts[::2], strict=True) if verdict.seconds > 3 + 3}
    assert not late
    assert [verdict.outcome for verdict in verdicts[1::2]] == [Outcome.PASSED] * len(rows)
    assert not psutil.Process().children()
