"""The program of a candidate's process: compiles the candidate, runs it, runs its tests, reports each result.

Started by the judge as `python -s -P child.py FD`, with the job as JSON on standard input. Standard library only. Every result
is one JSON line on the pipe FD that carries the job's random token, so that a program that writes to open files by chance
cannot forge one. (A program that searches this process's memory can: see the judge's list of what is not covered.)
"""

from __future__ import annotations

import ast
import io
import json
import os
import resource
import sys
import types
from collections.abc import Callable
from typing import Any

_COMPILE_ERRORS = (SyntaxError, ValueError, UnicodeEncodeError, OverflowError, RecursionError, MemoryError)
_MODULE_NAME = "candidate"


class _StopTesting(BaseException):
    """Ends a check function early, where the first failure is enough."""


class _Reporter:
    """Writes results to the judge's pipe."""

    def __init__(self, descriptor: int, token: str, stop_at_first_failure: bool) -> None:
        self._descriptor = descriptor
        self._token = token
        self._stop = stop_at_first_failure

    def event(self, kind: str, detail: str = "") -> None:
        line = json.dumps({"token": self._token, "kind": kind, "detail": detail[:300]}) + "\n"
        os.write(self._descriptor, line.encode("ascii"))

    def test(self, run: Callable[[], Any]) -> None:
        """Runs one test (or assertion) and reports it: `pass`, `wrong` (an answer that is not the expected one) or `raise`."""
        try:
            run()
        except AssertionError as error:
            self._failed("wrong", error)
        except _StopTesting:
            raise
        except BaseException as error:
            self._failed("raise", error)
        else:
            self.event("pass")

    def _failed(self, kind: str, error: BaseException) -> None:
        self.event(kind, describe(error))
        if self._stop:
            raise _StopTesting


def describe(error: BaseException) -> str:
    """Class, message and the candidate's line of an exception."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == f"<{_MODULE_NAME}>":
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    try:
        message = str(error)
    except BaseException:
        message = ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"{text}, line {lines[-1]}" if lines else text


def main() -> None:
    """Reads the job, applies the limits, runs everything."""
    descriptor = int(sys.argv[1])
    job = json.loads(sys.stdin.buffer.read())
    reporter = _Reporter(descriptor, job["token"], job["stop_at_first_failure"])
    _set_limits(job)
    sys.stdin = io.StringIO(job["stdin"])
    reporter.event("ready")
    try:
        code = compile(job["program"], f"<{_MODULE_NAME}>", "exec", dont_inherit=True)
    except _COMPILE_ERRORS as error:
        reporter.event("compile_error", describe(error))
        return
    if job["kind"] == "stdio":
        _run_as_main(code, job, reporter)
    else:
        _run_function_tests(code, job, reporter)
    reporter.event("end")


def _set_limits(job: dict[str, Any]) -> None:
    limits = {
        resource.RLIMIT_AS: job["memory_bytes"],
        resource.RLIMIT_CPU: int(job["timeout"]) + 2,  # the judge's own clock comes first
        resource.RLIMIT_FSIZE: job["max_output_bytes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _run_as_main(code: types.CodeType, job: dict[str, Any], reporter: _Reporter) -> None:
    """A whole program: its standard output is a file that the judge compares when the process has ended."""
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        exec(compile(job["setup_code"], "<setup>", "exec", dont_inherit=True), namespace)
        exec(code, namespace)
    except SystemExit as error:
        if error.code not in (None, 0):
            reporter.event("raise", describe(error))
            return
    except BaseException as error:
        reporter.event("raise", describe(error))
        return
    sys.stdout.flush()
    reporter.event("ran")


def _run_function_tests(code: types.CodeType, job: dict[str, Any], reporter: _Reporter) -> None:
    module = types.ModuleType(_MODULE_NAME)
    sys.modules[_MODULE_NAME] = module
    namespace = module.__dict__
    exec(compile(job["setup_code"], "<setup>", "exec", dont_inherit=True), namespace)
    try:
        exec(code, namespace)
    except BaseException as error:
        reporter.event("import_error", describe(error))
        return
    try:
        for test in job["tests"]:
            _run_test(test, job["entry_point"], namespace, reporter)
    except _StopTesting:
        pass


def _run_test(test: dict[str, Any], entry_point: str | None, namespace: dict[str, Any], reporter: _Reporter) -> None:
    if test["kind"] == "assert":
        code = compile(test["code"], "<test>", "exec", dont_inherit=True)
        reporter.test(lambda: exec(code, namespace))
    elif test["kind"] == "call":
        reporter.test(lambda: _call(test, entry_point, namespace))
    else:
        _run_check(test["code"], entry_point, namespace, reporter)


def _call(test: dict[str, Any], entry_point: str | None, namespace: dict[str, Any]) -> None:
    result = namespace[str(entry_point)](*json.loads(test["input"]))
    expected = json.loads(test["output"])
    if _plain(result) != expected:
        raise AssertionError(f"expected {str(test['output'])[:100]}")


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has no tuple."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


class _RecordAsserts(ast.NodeTransformer):
    """Turns each `assert test` into `_record(lambda: test)`, so that one that fails does not end the rest."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        test = ast.Lambda(
            args=ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]), body=node.test
        )
        call = ast.Call(func=ast.Name(id="_record", ctx=ast.Load()), args=[test], keywords=[])
        return ast.copy_location(ast.Expr(value=call), node)


def _run_check(code: str, entry_point: str | None, namespace: dict[str, Any], reporter: _Reporter) -> None:
    def record(test: Callable[[], Any]) -> None:
        def run() -> None:
            if not test():
                raise AssertionError

        reporter.test(run)

    tree = ast.fix_missing_locations(_RecordAsserts().visit(ast.parse(code)))
    check_namespace = {**namespace, "_record": record}
    exec(compile(tree, "<check>", "exec", dont_inherit=True), check_namespace)
    try:
        check_namespace["check"](namespace[str(entry_point)])
    except _StopTesting:
        raise
    except BaseException as error:
        reporter.event("raise_outside", describe(error))


if __name__ == "__main__":
    main()
