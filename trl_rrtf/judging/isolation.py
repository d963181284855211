"""What keeps candidates from doing harm on this system: found out by trying each forbidden act in a throw-away process."""

from __future__ import annotations

import dataclasses
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trl_rrtf.errors import JudgeError
from trl_rrtf.judging.config import ISOLATION_PROPERTIES, JudgeConfig
from trl_rrtf.judging.preparation import prepare
from trl_rrtf.judging.worker import CannotJudgeError, Worker, WorkerDiedError
from trl_rrtf.rows.records import Problem, UnitTest

_LARGEST_PROBED_FILE = 1_000_000
"""Bytes."""


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
    program = Path(__file__).with_name("probe.py").read_text()
    # The scratch folder lies in memory and is filled to its end, which goes with the largest file: tried with a small one.
    config = dataclasses.replace(config, max_output_bytes=min(config.max_output_bytes, _LARGEST_PROBED_FILE))
    worker = Worker(config, without)
    os.environ["TRL_RRTF_PROBE"] = "a secret"
    try:
        with tempfile.TemporaryDirectory(prefix="judge-probe-") as folder, socket.socket(socket.AF_UNIX) as bait:
            bait.bind(f"\0trl-rrtf-probe-{os.getpid()}")
            bait.listen()
            os.chmod(folder, 0o777)
            secret = Path(folder, "secret")
            secret.write_text("a secret")
            secret.chmod(0o644)
            arguments = f"{folder!r}, {os.getpid()}, {config.memory_mb * 2**20}, {config.max_output_bytes}"
            properties = {}
            for name in ISOLATION_PROPERTIES:
                test = UnitTest(kind="assert", code=f"assert {name}({arguments}) is True")
                problem = Problem(problem_id=name, prompt=name, tests=[test], entry_point=name)
                verdict = worker.judge(prepare(problem), program)
                properties[name] = verdict["passed"] == 1
            if Path(folder, "written").exists():
                properties["files"] = False
    except (WorkerDiedError, CannotJudgeError) as error:
        raise JudgeError(f"the judge's workers do not start: {error}") from error
    finally:
        del os.environ["TRL_RRTF_PROBE"]
        worker.stop()
    return Isolation(properties, worker.layers)
