"""`trl-rrtf train` starts as many processes as it is asked for, or says why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trl
from accelerate.commands import launch as accelerate_launch

from tests.test_cli import train_arguments
from trl_rrtf import ConfigError
from trl_rrtf.training.launch import launch

CONFIGS = Path(trl.__file__).parent / "accelerate_configs"


@pytest.mark.parametrize("flags", [["--cpu"], []], ids=["--cpu", "no GPU"])
def test_two_processes_on_a_cpu_are_two(tiny_model_dir, tmp_path, flags):
    arguments = train_arguments(tiny_model_dir, tmp_path)
    command = [sys.executable, "-m", "trl_rrtf.cli", "train", "--num_processes", "2", *flags, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "d" / "train_settings.json").read_text())["processes"] == 2


@pytest.fixture
def launched(monkeypatch):
    seen = []
    monkeypatch.setattr(accelerate_launch, "launch_command", seen.append)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    return seen


def test_more_processes_than_gpus_are_refused(launched, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="`num_processes`: 3 processes on this machine need as many GPUs, and it has 2"):
        launch("train", ["--num_processes", "3"], [])
    launch("train", ["--num_processes", "4", "--num_machines", "2"], [])
    launch("train", ["--num_processes", "1"], [])
    launch("train", ["--num_processes", "2", "--config_file", str(CONFIGS / "single_gpu.yaml")], [])
    launch("train", ["--num_processes", "8", "--config_file", str(CONFIGS / "fsdp2.yaml")], [])
    assert [options.multi_gpu for options in launched] == [True, False, True, False]
    assert "ACCELERATE_USE_CPU" not in os.environ


def test_a_cpu_and_a_configuration_of_gpus_contradict(launched, tmp_path):
    (tmp_path / "fsdp.yaml").write_text("num_processes: 8")
    with pytest.raises(ConfigError, match="`cpu`: accelerate starts one process with `--cpu` and a configuration file"):
        launch("train", ["--cpu", "--config_file", str(tmp_path / "fsdp.yaml")], [])
