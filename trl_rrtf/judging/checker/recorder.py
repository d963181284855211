"""What test code tells while it runs: which assertions held, and when a statement has ended."""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from trl_rrtf.judging.checker.code_of_tests import line_of_tests
from trl_rrtf.judging.checker.remote import CandidateGoneError, Session
from trl_rrtf.judging.checker.seen import NOTHING_SEEN, Seen, values_seen

LONGEST_DETAIL = 400
"""Characters of what a verdict says of a failure."""
_END = object()


class JudgeFailedError(BaseException):
    """The judge, not the candidate, failed. No `except Exception` of a test catches it.

    Args:
        reason: What failed.
        candidate_killed: Whether somebody else killed the candidate's process; where no layer refuses signals, it may have been
            the candidate itself.
        for_good: Whether trying again will not help.
    """

    def __init__(self, reason: str, *, candidate_killed: bool = False, for_good: bool = False) -> None:
        super().__init__(reason)
        self.candidate_killed = candidate_killed
        self.for_good = for_good


class StopTestingError(BaseException):
    """Ends the tests early, where the first failure is enough."""


class Failed(NamedTuple):
    """Where a program went wrong first.

    Attributes:
        test: Number of the test.
        line: Line of its code, 0 if unknown.
        raised: What was raised there, in words; nothing if an assertion did not hold, or the candidate was lost.
        is_lost: Whether the candidate was lost there.
        seen: The values there, if they are asked for.
    """

    test: int
    line: int = 0
    raised: str = ""
    is_lost: bool = False
    seen: Seen = NOTHING_SEEN


class _Told(NamedTuple):
    """What an assertion tells of itself while it runs: side -> value, and the names that it reads."""

    sides: dict[int, Any]
    names: list[str]


class Recorder:
    """A context manager around each assertion; counts what held.

    Args:
        session: The conversation with the candidate.
        stop_at_first_failure: End the tests with the first assertion that fails.
        tells: Keep the values of the first that fails.

    Attributes:
        passed: Assertions that held.
        executed: Assertions that were reached.
        complete: Whether all test code ran to its end, whatever was recorded.
        wrong: The first assertion that failed, in words.
        raised: The first exception, in words.
        out_of_memory: Whether this process ran out of memory.
        test: Number of the test that runs.
        failed: Where it went wrong first, or None.
    """

    def __init__(self, session: Session, *, stop_at_first_failure: bool, tells: bool = False) -> None:
        self._session = session
        self._tells = tells
        self._told: list[_Told] = []  # by the assertions that run, the innermost last
        self._stop = stop_at_first_failure
        self._stopped = False
        self.passed = 0
        self.executed = 0
        self.complete = True
        self.wrong = ""
        self.raised = ""
        self.out_of_memory = False
        self.test = 0
        self.failed: Failed | None = None

    def __enter__(self) -> None:
        self.executed += 1
        if self._tells:
            self._told.append(_Told({}, []))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        seen = self._seen(error, trace) if self._tells else NOTHING_SEEN  # before what was changed in place arrives
        self._session.settle()
        if error is None:
            self.passed += 1
            return True
        if isinstance(error, JudgeFailedError | StopTestingError | GeneratorExit):
            return False
        raised = self.note(error)
        is_lost = isinstance(error, CandidateGoneError)
        self.failed = self.failed or Failed(self.test, line_of_tests(trace), raised, is_lost, seen)
        if self._stop:
            raise StopTestingError
        return True

    def note(self, error: BaseException) -> str:
        """Remembers the first wrong answer and the first exception; returns this exception in words, if it is no answer."""
        if isinstance(error, CandidateGoneError):
            return ""
        of_candidate = self._session.has_raised(error)
        self.out_of_memory |= isinstance(error, MemoryError) and not of_candidate
        text = describe(error, self._session.line_of(error))
        if isinstance(error, AssertionError) and not of_candidate:
            self.wrong = self.wrong or f"{text}, test {self.executed}"
            return ""
        self.raised = self.raised or text
        return text

    def lost(self, error: CandidateGoneError) -> None:
        """The candidate was lost, perhaps where no assertion stands."""
        self.failed = self.failed or Failed(self.test, line_of_tests(error.__traceback__), is_lost=True)

    def fails_between_assertions(self, error: BaseException) -> None:
        """Something raised where no assertion stands, and ended the code."""
        if isinstance(error, StopTestingError):  # unittest catches everything
            self._stopped = True
        else:
            raised = self.note(error)
            self.failed = self.failed or Failed(self.test, line_of_tests(error.__traceback__, innermost=True), raised)
        self.complete = False

    def _seen(self, error: BaseException | None, trace: types.TracebackType | None) -> Seen:
        """The values of the assertion that ends, if it is the first that fails."""
        told = self._told.pop()
        if error is None or self.failed is not None or isinstance(error, JudgeFailedError | StopTestingError | GeneratorExit):
            return NOTHING_SEEN
        does_not_hold = isinstance(error, AssertionError) and not self._session.has_raised(error)
        return values_seen(told.sides if does_not_hold else {}, told.names, trace)

    # --- Called by test code ---------------------------------------------------------------------------------------------

    def reads(self, *names: str) -> None:
        """The names that the assertion reads which begins."""
        self._told[-1].names[:] = names

    def saw(self, side: int, value: Any) -> Any:
        """A value that the assertion compares, given back as it is."""
        if self._told:
            self._told[-1].sides[side] = value
        return value

    def statement_ended(self) -> None:
        """What the candidate changed in place arrives."""
        self._session.settle()

    def part_held(self) -> bool:
        """Between the parts of an `and`."""
        self._session.settle()
        return True

    def part_failed(self) -> bool:
        """Between the parts of an `or`."""
        self._session.settle()
        return False

    def zip(self, *iterables: Iterable[Any], strict: bool = False) -> Iterator[tuple[Any, ...]]:
        """`zip`, for a loop that compares: it fails where the loop would compare nothing because one of them is empty."""
        iterators = [iter(iterable) for iterable in iterables]
        first = [next(iterator, _END) for iterator in iterators]
        empty = sum(item is _END for item in first)
        if 0 < empty < len(first):
            with self:
                raise AssertionError("a loop over results runs over nothing")
        if first and not empty:
            yield tuple(first)
            yield from builtins.zip(*iterators, strict=strict)

    def run_test_function(self, function: Callable[[], Any]) -> None:
        """Runs a test function in the style of pytest."""
        self._count_unrecorded(lambda: _finished(function()))

    def run_test_class(self, kind: type) -> None:
        """Runs a class of tests in the style of unittest or pytest."""
        import unittest

        if issubclass(kind, unittest.TestCase):
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(kind):
                self._count_unrecorded(lambda test=test: unittest.TestSuite([test]).run(self._result()))  # type: ignore[misc]
                if self._session.gone is not None:
                    raise self._session.gone
                if self._stopped:
                    raise StopTestingError
            return
        if hasattr(kind, "setup_class"):
            kind.setup_class()
        for name in dir(kind):
            if name.startswith("test"):
                self._count_unrecorded(lambda name=name: self._run_method(kind(), name))  # type: ignore[misc]

    def _run_method(self, instance: Any, name: str) -> None:
        for before in ("setup_method", "setUp"):
            if hasattr(instance, before):
                method = getattr(instance, before)
                method(*[None] * (method.__code__.co_argcount - 1))
        _finished(getattr(instance, name)())

    def _count_unrecorded(self, run: Callable[[], Any]) -> None:
        """Runs a test that may hold no assertion, and then counts as one."""
        executed = self.executed
        try:
            run()
        except (CandidateGoneError, JudgeFailedError, StopTestingError):
            raise
        except BaseException as error:
            self.fails_between_assertions(error)
            return
        if self.executed == executed and self.complete:
            self.executed += 1
            self.passed += 1

    def _result(self) -> Any:
        import unittest

        recorder = self

        class Result(unittest.TestResult):
            def addError(self, test: Any, err: Any) -> None:  # noqa: N802 - unittest's name
                recorder.fails_between_assertions(err[1])

            def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
                recorder.fails_between_assertions(err[1])

            def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
                if err is not None:
                    recorder.fails_between_assertions(err[1])

        return Result()


def _finished(result: Any) -> None:
    if isinstance(result, types.CoroutineType):
        import asyncio  # here: a module more makes every fork of a checker slower

        asyncio.run(result)


def describe(error: BaseException, line: int | None) -> str:
    """Class and text of an exception, and the program's line if it is known."""
    try:
        text = str(error)[:300]
    except BaseException:  # the text is made in the candidate's process
        text = ""
    name = type(error).__name__
    return f"{name}{': ' if text else ''}{text}{'' if line is None else f', line {line}'}"[:LONGEST_DETAIL]
