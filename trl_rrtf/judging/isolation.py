"""What keeps candidates from doing harm on this system: found out by trying each forbidden act in a throw-away process."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from trl_rrtf.errors import JudgeError
from trl_rrtf.judging.candidate.containment import NOBODY
from trl_rrtf.judging.config import ISOLATION_PROPERTIES, JudgeConfig
from trl_rrtf.judging.folder import OwnFolder
from trl_rrtf.judging.preparation import prepare
from trl_rrtf.judging.wire.protocol import Judged
from trl_rrtf.judging.worker import CannotJudgeError, Worker, WorkerDiedError
from trl_rrtf.rows.records import Problem, UnitTest

_PROBING = threading.Lock()
"""The bait is of the whole process: an environment variable and a socket's name."""
_LARGEST_PROBED_FILE = 1_000_000
"""Bytes."""

_MOST_PROBED_MEMORY = 256
"""MiB."""


@dataclass(frozen=True)
class Isolation:
    """What holds for each candidate.

    Attributes:
        properties: Name, see [`ISOLATION_PROPERTIES`][trl_rrtf.judging.config.ISOLATION_PROPERTIES] -> whether it holds.
        layers: Layer of the containment -> `on`, or why it is missing.
    """

    properties: dict[str, bool]
    layers: dict[str, str]

    def missing(self) -> list[str]:
        """Properties that do not hold."""
        return [name for name, holds in self.properties.items() if not holds]

    def summary(self) -> str:
        """One line for tables."""
        held = ", ".join(name for name, holds in self.properties.items() if holds)
        missing = ", ".join(self.missing())
        return f"no {missing}; {held or 'nothing else'}" if missing else held

    def require(self, names: list[str]) -> None:
        """Refuses a system that lacks a property.

        Args:
            names: Properties that must hold.

        Raises:
            JudgeError: One does not; its layers are named.
        """
        lacking = [name for name in names if not self.properties[name]]
        if lacking:
            layers = "; ".join(f"{name}: {state}" for name, state in self.layers.items() if not state.startswith("on"))
            raise JudgeError(
                f"`required_isolation`: this system does not provide {', '.join(lacking)} ({layers or 'all layers are on'}). "
                "Run where the layers are allowed, install bubblewrap, or require less"
            )


def probe_isolation(config: JudgeConfig, without: tuple[str, ...] = ()) -> Isolation:
    """Starts a worker of its own and tries every forbidden act in it.

    Args:
        config: The limits to try.
        without: Layers to leave out.

    Raises:
        JudgeError: No worker starts.
    """
    program = Path(__file__).with_name("candidate").joinpath("probe.py").read_text()
    # The scratch folder lies in memory and is filled to its end, which goes with the largest file, and memory is used up to its
    # limit: both are tried with small ones.
    config = dataclasses.replace(
        config,
        max_output_bytes=min(config.max_output_bytes, _LARGEST_PROBED_FILE),
        memory_mb=min(config.memory_mb, _MOST_PROBED_MEMORY),
    )
    with _PROBING:
        return _probed(Worker(config, without), program, config)


def _probed(worker: Worker, program: str, config: JudgeConfig) -> Isolation:
    os.environ["TRL_RRTF_PROBE"] = "a secret"
    bait = OwnFolder()
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(f"\0trl-rrtf-probe-{os.getpid()}")
            end.listen()
            properties = _tried(worker, program, bait.path, config)
    except (WorkerDiedError, CannotJudgeError) as error:
        raise JudgeError(f"the judge's workers do not start: {error}") from error
    finally:
        del os.environ["TRL_RRTF_PROBE"]
        worker.stop()
        bait.remove()
    return Isolation(properties, worker.layers)


def _tried(worker: Worker, program: str, folder: str, config: JudgeConfig) -> dict[str, bool]:
    """Runs the acts, with a folder of files to try them on."""
    os.chmod(folder, 0o777)
    secret, victim = Path(folder, "secret"), Path(folder, "victim")
    for file, mode in ((secret, 0o644), (victim, 0o600)):
        file.write_text("a secret")
        file.chmod(mode)
    if os.geteuid() == 0:
        os.chown(victim, NOBODY, NOBODY)  # the worst case is a file of the user that the candidate runs as
    arguments = f"{folder!r}, {os.getpid()}, {config.memory_mb * 2**20}, {config.max_output_bytes}"

    def run(act: str) -> Judged:
        test = UnitTest(kind="assert", code=f"assert {act}({arguments}) is True")
        return worker.judge(prepare(Problem(problem_id=act, prompt=act, tests=[test], entry_point=act)), program)

    before = _facts(victim)
    properties = {name: run(name).passed == 1 for name in ISOLATION_PROPERTIES}
    # What uses more memory than it may is ended.
    used = run("used_memory")
    properties["memory"] &= used.passed == 1 or used.detail.startswith("memory limit")
    properties["files"] &= _facts(victim) == before and not Path(folder, "written").exists()
    return properties


def _facts(file: Path) -> tuple[object, ...]:
    try:
        status = file.stat()
        attributes = os.listxattr(file)
    except OSError as error:
        return (error.errno,)
    return status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, attributes
