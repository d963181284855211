"""Trained models on the Hub, against a stand-in of its HTTP API: by the trainer, and by the stage until it has succeeded."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys

import pytest

from tests.conftest import ranked_row
from tests.hub_stub import CLIENT, HubStub
from trl_rrtf import RRTFConfig

TOKEN = "hf_" + "a1B2" * 9

PUSH_MODEL = """
import sys
from datasets import Dataset
from trl_rrtf import RRTFConfig, RRTFTrainer
from tests.conftest import ranked_row
model, output = sys.argv[1:]
rows = [ranked_row(3, seed=i) for i in range(4)]
args = RRTFConfig(output, bf16=False, use_cpu=True, report_to=[], max_steps=1, hub_model_id="me/coder", logging_steps=1,
                  hub_token="hf_" + "a1B2" * 9)
trainer = RRTFTrainer(model, args, train_dataset=Dataset.from_list(rows))
trainer.train()
trainer.push_to_hub(dataset_name="me/ranked", tags="mine")
"""

# One process for all runs: each would load torch again.
RUN_AGAIN_AND_AGAIN = """
import json, os, sys
from pathlib import Path
from tests.hub_stub import HubStub
hub = HubStub()
os.environ |= {"HF_ENDPOINT": hub.endpoint}
from trl import ModelConfig
from trl_rrtf import OutputError, RRTFConfig
from trl_rrtf.training import stage
from trl_rrtf.training.options import TrainArguments

model, groups, output = sys.argv[1:]

def run(name, fails=False, **options):
    hub.fail = fails
    hub.repos.clear()
    config = RRTFConfig(output, bf16=False, use_cpu=True, report_to=[], max_steps=2, save_steps=1, **options)
    try:
        told = stage.run_train(TrainArguments(groups, model), config, ModelConfig()).pushed_to
    except OutputError as error:
        told = str(error)
    result = json.loads(Path(output, "train_result.json").read_text())
    repos = {name: sorted(files) for name, files in hub.repos.items()}
    cards = [files["README.md"].decode() for files in hub.repos.values() if "README.md" in files]
    runs[name] = {"told": told.replace(hub.endpoint, "HUB"), "recorded": result["pushed_to"], "repos": repos, "cards": cards}

runs = {}
push = {"push_to_hub": True, "hub_model_id": "me/coder", "hub_strategy": "end"}
run("failed", fails=True, **push)
stage.RRTFTrainer = None  # from here on the model may not be loaded
Path(output, "torn-checkpoint-1").mkdir()
Path(output, "torn-checkpoint-1", "model.safetensors").write_text("torn")
run("again", **push)
run("done", fails=True, **push)
run("elsewhere", **{**push, "hub_model_id": "me/other"})
print(json.dumps(runs))
"""


@pytest.fixture
def hub():
    stub = HubStub()
    yield stub
    stub.close()


def run(code, *arguments, **environment):
    environment = {**os.environ, **CLIENT, **environment}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_model_tokenizer_and_card_are_pushed(hub, tiny_model_dir, tmp_path):
    run(PUSH_MODEL, tiny_model_dir, tmp_path / "out", HF_ENDPOINT=hub.endpoint)
    files = hub.repos["models/me/coder"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md"} <= set(files)
    assert files["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()
    card = files["README.md"].decode()
    header = card.split("---")[1]
    assert all(f"- {tag}\n" in header for tag in ("trl", "rrtf", "mine"))
    assert "me/ranked" in header
    assert "| `rank_loss` | rrtf |" in card
    assert "| `loss/rank` |" in card
    assert "2307.14936" in card
    assert "TRL: Transformers Reinforcement Learning" in card
    assert "None" not in card
    assert "training_args.bin" in files, "transformers uploads its pickled configuration"
    assert not [name for name, content in files.items() if TOKEN.encode() in content]


def test_the_token_stays_in_the_process_that_was_given_it(tmp_path):
    config = RRTFConfig(str(tmp_path), bf16=False, use_cpu=True, report_to=[], hub_token=TOKEN)
    assert copy.copy(config).hub_token == config.hub_token == TOKEN
    kept = pickle.loads(pickle.dumps(config))
    assert TOKEN.encode() not in pickle.dumps(config)
    assert {**kept.to_dict(), "hub_token": ""} == {**config.to_dict(), "hub_token": ""}


def test_a_push_that_failed_is_done_by_the_next_run(tiny_model_dir, tmp_path):
    rows = [ranked_row(3, seed=i) for i in range(4)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = run(RUN_AGAIN_AND_AGAIN, tiny_model_dir, tmp_path / "r.jsonl", tmp_path / "out")
    runs = json.loads(output.splitlines()[-1])
    assert "`me/coder` on the Hub cannot be written" in runs["failed"]["told"]
    assert "is complete, run the same command again to upload it" in runs["failed"]["told"]
    assert runs["failed"]["recorded"] is None
    assert runs["failed"]["repos"] == {"models/me/coder": []}

    files = runs["again"]["repos"]["models/me/coder"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= set(files)
    assert not [name for name in files if "checkpoint" in name or name.startswith("runs/") or name.endswith(".lock")]
    own = {"train_settings.json", "train_result.json", "training_args.bin"}
    assert not own & set(files), "they name folders of this machine, or hold a token"
    assert runs["again"]["told"] == "HUB/me/coder"
    assert runs["again"]["recorded"].endswith("/me/coder")

    (card,) = runs["again"]["cards"]
    assert "on local data, `r.jsonl`." in card
    header = card.split("---")[1]
    assert "datasets" not in header, "a file here is no data set on the Hub"
    assert "base_model" not in header, "nor a folder a model"
    assert str(tmp_path) not in card

    assert runs["done"] == {**runs["again"], "repos": {}, "cards": []}
    assert set(runs["elsewhere"]["repos"]) == {"models/me/other"}
    assert runs["elsewhere"]["told"] == "HUB/me/other"
