"""A checker and the candidate servers whose processes it tests. Started fresh, never forked from the user's process."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack

from trl_rrtf.judging.candidate.containment import DEVICES, SCRATCH, STANDARD_STREAMS, readable_paths
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.folder import OwnFolder
from trl_rrtf.judging.preparation import PreparedProblem
from trl_rrtf.judging.system_call_filter import SystemCallFilters, system_call_filters
from trl_rrtf.judging.wire.channel import Channel, ChannelClosedError
from trl_rrtf.judging.wire.protocol import (
    CannotJudge,
    ComparisonHung,
    EndProblem,
    Judged,
    JudgeFailed,
    JudgeProgram,
    Observed,
    ObserveProgram,
    ServerReady,
    from_parts,
)

_logger = logging.getLogger(__name__)

_PACKAGE_FOLDER = str(Path(__file__).parents[2])
_START = "import sys; sys.path.append({folder!r}); from trl_rrtf.judging.{module} import main; main()"
_FILES_IN_SCRATCH = 16
"""How many files of the largest size fit into a candidate's scratch folder."""
_START_SECONDS = 60.0
_GRACE_SECONDS = 2.0
"""What the checker gets beyond the candidate's time before it counts as hung, on a machine that has time for it."""

_LONGEST_STRETCH = 10
"""How much later than on a quiet machine a limit of time may come on a busy one."""

_LIGHT_MODULES = (
    *("typing", "collections", "collections.abc", "functools", "itertools", "math", "operator"),
    *("heapq", "bisect", "string", "re", "copy"),
)
_HEAVY_MODULES = (
    *("random", "datetime", "json", "decimal", "fractions", "statistics", "dataclasses", "enum", "hashlib"),
    *("unittest", "asyncio", "numpy"),
)
_USES_HEAVY_MODULE = re.compile(rf"^[ \t]*(?:import|from)\b.*\b(?:{'|'.join(_HEAVY_MODULES)})\b", re.MULTILINE)
"""A process with all of these loaded takes three times as long to fork, so the programs that use none get a lighter one."""


class WorkerDiedError(Exception):
    """A worker ended, or hung; says nothing about the candidate."""


class CandidateKilledError(WorkerDiedError):
    """The candidate's process got a SIGKILL that the judge did not send."""


class WorkerHungError(WorkerDiedError):
    """The checker did not answer in time."""


class ComparisonHungError(WorkerHungError):
    """The checker used up its processor time on what the candidate sent."""


class Worker:
    """A checker and its candidate servers, started when they are first needed and again after they died.

    Args:
        config: Limits of the candidates.
        without: Layers of the containment to leave out.
    """

    def __init__(self, config: JudgeConfig, without: tuple[str, ...] = ()) -> None:
        self._config = config
        self._without = without
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder: OwnFolder | None = None
        self._control: Channel | None = None
        self._server_ends: list[socket.socket | None] = []
        self._problem: PreparedProblem | None = None
        self._closed = False
        self.layers: dict[str, str] = {}

    def process_ids(self) -> list[int]:
        """The processes that run now."""
        return [process.pid for process in self._processes]

    def judge(self, problem: PreparedProblem, program: str) -> Judged:
        """Judges one program.

        Raises:
            WorkerDiedError: No verdict; the worker is stopped, and the next call starts a new one.
            CannotJudgeError: The problem's own code fails.
        """
        judged: Judged = self._ask(problem, program, JudgeProgram, Judged)
        return judged

    def observe(self, problem: PreparedProblem, program: str) -> Observed:
        """Observes one program.

        Raises:
            WorkerDiedError: As in `judge`.
            CannotJudgeError: As in `judge`.
        """
        observed: Observed = self._ask(problem, program, ObserveProgram, Observed)
        return observed

    def _ask(self, problem: PreparedProblem, program: str, question: type, wanted: type) -> Any:
        try:
            return self._answer(problem, program, question, wanted)
        except (ChannelClosedError, OSError) as error:
            self.stop()
            raise WorkerDiedError(f"{type(error).__name__}: {error}") from error
        except WorkerDiedError:
            self.stop()
            raise

    def _answer(self, problem: PreparedProblem, program: str, question: type, wanted: type) -> Any:
        if self._control is None:
            self.start()
        heavy = any(map(_USES_HEAVY_MODULE.search, (program, problem.tests.setup_code)))
        self._start_candidate_server(int(heavy))
        control = self._control
        assert control is not None
        if self._problem is not problem:
            if self._problem is not None:
                control.send(EndProblem())
            control.send(problem.tests)
            self._problem = problem
        control.send(question(program, int(heavy)))
        deadline = time.monotonic() + _LONGEST_STRETCH * (problem.runs * self._config.timeout + _GRACE_SECONDS)
        try:
            answer = control.receive(wanted, CannotJudge, JudgeFailed, ComparisonHung, deadline=deadline)
        except TimeoutError:
            raise WorkerHungError("the checker did not answer in time") from None
        if isinstance(answer, CannotJudge):
            raise CannotJudgeError(answer.reason)
        if isinstance(answer, ComparisonHung):
            raise ComparisonHungError("the checker used up its time")
        if isinstance(answer, JudgeFailed):
            raise CandidateKilledError(answer.reason) if answer.candidate_killed else WorkerDiedError(answer.reason)
        if answer.checker_ends:
            self._problem = None
        return answer

    def start(self) -> None:
        """Starts a checker, and a candidate server for most programs.

        Raises:
            WorkerDiedError: They do not start.
        """
        if self._closed:
            raise WorkerDiedError("the judge is closed; make a new one")
        self._folder = OwnFolder()
        ours, checkers = socket.socketpair()
        pairs = [socket.socketpair() for _ in range(2)]
        self._server_ends = [server for _, server in pairs]
        config = self._config
        settings = {
            **self._limits(),
            "stop_at_first_failure": config.stop_at_first_failure,
            "number_tolerance": config.number_tolerance,
            "checker_memory_bytes": (2 * config.memory_mb + 1024) * 2**20,
            "descriptor": checkers.fileno(),
            "runners": [checker.fileno() for checker, _ in pairs],
        }
        self._control = Channel(ours)
        checkers_ends = [checkers, *(checker for checker, _ in pairs)]
        try:
            self._spawn("checker.checker", settings, checkers_ends)
        finally:
            for end in checkers_ends:
                end.close()
        self._start_candidate_server(0)

    def stop(self) -> None:
        """Kills both, and removes what they left."""
        for process in self._processes:
            _kill(process)
        for process in self._processes:
            _finish(process)
        self._processes = []
        for end in (self._control, *self._server_ends):
            if end is not None:
                end.close()
        self._control, self._server_ends, self._problem = None, [], None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def close(self) -> None:
        """Stops for good. May be called from another thread while a program runs."""
        self._closed = True
        for process in self._processes:
            _kill(process)

    def _limits(self) -> dict[str, Any]:
        config = self._config
        return {
            "timeout": config.timeout,
            "longest_seconds": _LONGEST_STRETCH * config.timeout,
            "memory_bytes": config.memory_mb * 2**20,
            "file_bytes": config.max_output_bytes,
        }

    def _start_candidate_server(self, index: int) -> None:
        """Starts the server for light or heavy programs, contained as well as the system can."""
        end = self._server_ends[index]
        if end is None:
            return
        assert self._folder is not None
        folder = os.path.join(self._folder.path, str(index))
        os.mkdir(folder)
        settings = {
            **self._limits(),
            "folder": folder,
            "scratch_bytes": _FILES_IN_SCRATCH * self._config.max_output_bytes,
            "modules": [*_LIGHT_MODULES, *(_HEAVY_MODULES if index else ())],
            "worker_filter": b"",
            "candidate_filter": b"",
            "candidate_filter_without_view": b"",
            "descriptor": end.fileno(),
        }
        filters = system_call_filters()
        if isinstance(filters, SystemCallFilters):
            settings |= {
                "worker_filter": filters.worker,
                "candidate_filter": filters.candidate,
                "candidate_filter_without_view": filters.candidate_without_view,
            }
        layers = self._contained_start(settings, end)
        if not isinstance(filters, SystemCallFilters):
            layers["seccomp"] = f"missing ({filters})"
        self.layers = layers
        _warn_of(tuple(f"{name}: {state}" for name, state in layers.items() if state.startswith("missing")))
        self._server_ends[index] = None
        end.close()

    def _contained_start(self, settings: dict[str, Any], end: socket.socket) -> dict[str, str]:
        """Own namespaces first; bubblewrap where the system allows only that; else without both. Returns the layers."""
        with_bubblewrap = _bubblewrap(settings["scratch_bytes"]) if "bubblewrap" not in self._without else []
        ways: list[tuple[list[str], tuple[str, ...]]] = [([], ())]
        if with_bubblewrap:
            ways.append((with_bubblewrap, ()))
        ways.append(([], ("namespaces",)))
        problem: WorkerDiedError | None = None
        for number, (prefix, left_out) in enumerate(ways):
            last = number == len(ways) - 1
            here = {**settings, "without": [*self._without, *left_out], "bubblewrap": bool(prefix)}
            process = self._spawn("candidate.server", here, [end], prefix)
            try:
                layers = _report(process)
            except WorkerDiedError as error:
                problem = error
            else:
                if layers["namespaces"].startswith("on") or last or (not with_bubblewrap and not prefix):
                    return layers
            self._discard(process)
            shutil.rmtree(os.path.join(settings["folder"], "scratch"), ignore_errors=True)
        assert problem is not None
        raise problem

    def _discard(self, process: subprocess.Popen[bytes]) -> None:
        self._processes.remove(process)
        _kill(process)
        _finish(process)

    def _spawn(
        self, module: str, settings: dict[str, Any], ends: list[socket.socket], prefix: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            # Not -I, which would ignore PYTHONHASHSEED: with a fixed seed a program behaves the same each time.
            [*prefix, sys.executable, "-s", "-P", "-c", _START.format(folder=_PACKAGE_FOLDER, module=module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[end.fileno() for end in ends],
            cwd="/",
            # One heap for all threads: each of its own would reserve 64 MiB of what the limit of memory counts.
            env={"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
            start_new_session=True,
        )
        self._processes.append(process)
        if self._closed:  # in the meantime, by another thread, which did not see this process
            _kill(process)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; the first answer that does not come tells
            process.stdin.write(msgpack.packb(settings))
            process.stdin.close()
        return process


class CannotJudgeError(Exception):
    """The problem's own code fails, so no candidate can be judged by it."""


@functools.cache
def _warn_of(missing: tuple[str, ...]) -> None:
    """Says once what the system lacks."""
    if missing:
        _logger.warning("the judge contains programs less than it could: %s; see `trl-rrtf env`", "; ".join(missing))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a worker with what it forked: a shell killed before its child asked to end with it would leave the child."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for a killed process and closes its pipes."""
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _bubblewrap(scratch_bytes: int) -> list[str]:
    """The command that runs another one in namespaces, with a view of the files that Python needs; nothing if not installed."""
    program = shutil.which("bwrap")
    if program is None:
        return []
    readable = [*readable_paths(), os.path.join(_PACKAGE_FOLDER, "trl_rrtf")]
    shown = [part for path in readable for part in _shown_by_bubblewrap(path)]
    devices = [part for device in DEVICES for part in ("--dev-bind", device, device)]
    devices += [part for name, target in STANDARD_STREAMS.items() for part in ("--symlink", target, name)]
    scratch = ["--size", str(scratch_bytes), "--tmpfs", SCRATCH, "--chmod", "1777", SCRATCH]
    if not any(path.startswith("/tmp/") for path in readable):  # else Python lies there
        scratch += ["--symlink", SCRATCH, "/tmp"]
    options = ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc", "--chdir", "/"]
    return [program, *options, *scratch, *shown, *devices, "--"]


def _shown_by_bubblewrap(path: str) -> tuple[str, str, str]:
    return ("--symlink", os.readlink(path), path) if os.path.islink(path) else ("--ro-bind", path, path)


def _report(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """What a candidate server says of its layers once it is ready."""
    assert process.stdout is not None
    assert process.stderr is not None
    readable, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
    data = os.read(process.stdout.fileno(), 65536) if readable else b""
    if not data:
        _kill(process)
        process.wait()
        error = process.stderr.read()[-300:].decode("utf-8", "replace")
        raise WorkerDiedError(f"a candidate server did not start: {error or 'it did not report in time'}")
    ready: ServerReady = from_parts(msgpack.unpackb(data), (ServerReady,))
    return ready.layers
