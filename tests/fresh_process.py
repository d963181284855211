"""Scripts in processes of their own, which share what takes seconds: torch, transformers and TRL are imported once."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

PRELOADED = ["torch", "trl", "peft", "trl_rrtf.training.trainer"]


@dataclass
class Done:
    """What a script did."""

    returncode: int
    stderr: str


def run_script(script: Path) -> Done:
    """Runs a script as `python SCRIPT` in its folder would, in a process that is forked after the imports."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOADED)
    errors = script.with_suffix(".stderr")
    process = processes.Process(target=_run, args=(str(script), str(errors)))
    process.start()
    process.join()
    return Done(process.exitcode or 0, errors.read_text())


def _run(script: str, errors: str) -> None:
    descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.chdir(Path(script).parent)
    sys.path[0] = str(Path(script).parent)
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
