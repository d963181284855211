"""What a program does on given inputs, where no test says what it should do."""

from __future__ import annotations

from dataclasses import dataclass

INPUT_KINDS = ("expression", "stdin")
"""What an observation may be made with: a Python expression, or a text for standard input of the whole program."""


@dataclass(frozen=True)
class Observation:
    """What a program gave for one input.

    Value and error hold text that the program's author may have chosen: show it to a person or a model as that, and never
    run it.

    Attributes:
        value: The value of the expression, like its `repr`: the same text for equal containers (sets and dictionaries are
            sorted), the standard output without white space at the ends of its lines. Above 2,000 characters it is cut, with a
            digest of the whole behind it. None where there is none.
        error: Why there is none, such as `"ValueError: x"` or `"time limit of 3 s"`; else empty.
        is_infrastructure: Whether the judge failed, and the error says nothing about the program.
    """

    value: str | None
    error: str = ""
    is_infrastructure: bool = False
