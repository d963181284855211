"""A whole program in the candidate's process, with standard input and output."""

from __future__ import annotations

import atexit
import io
import os
import socket
import sys
import types
from typing import Any

from trl_rrtf.judging.candidate.loading import compiled, describe
from trl_rrtf.judging.wire.channel import Channel
from trl_rrtf.judging.wire.process import fix_seeds
from trl_rrtf.judging.wire.protocol import ProgramRaised, ProgramRan, RunProgram


def run_as_main(channel: Channel, message: RunProgram) -> int:
    """A whole program with standard input and output, which the checker made and keeps; returns its exit status."""
    _, descriptors, *_ = socket.recv_fds(channel.socket, 1, 2)
    code = compiled(message.program, channel)
    if code is None:
        return 1
    for standard, descriptor in enumerate(descriptors):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    as_text: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), **as_text)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), **as_text)  # type: ignore[misc]
    atexit._clear()
    raised = ""
    try:
        exec(compile(message.setup_code, "<setup>", "exec", dont_inherit=True), module.__dict__)
        fix_seeds()
        exec(code, module.__dict__)
    except SystemExit as error:
        raised = "" if error.code in (None, 0) else describe(error)
    except BaseException as error:
        raised = describe(error)
    raised = _end_as_python_does() or raised
    channel.send(ProgramRaised(raised) if raised else ProgramRan())
    return 1 if raised else 0


def _end_as_python_does() -> str:
    """Waits for threads, calls exit handlers, writes what is buffered; what raised, if anything of that matters."""
    try:
        if (threading := sys.modules.get("threading")) is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
        for stream in dict.fromkeys((sys.stdout, sys.__stdout__)):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
    except BaseException as error:
        return describe(error)
    return ""
