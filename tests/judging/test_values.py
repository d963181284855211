"""What crosses between checker and candidate arrives as it was, and nothing but plain values can be made from any bytes."""

from __future__ import annotations

import datetime
import math
import random
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from trl_rrtf.judging.wire.values import MAX_DEPTH, CannotCrossError, Codec, MalformedValueError

CODEC = Codec()

VALUES = [
    *(None, True, False, 0, -1, 2**63, -(2**200), 1.5, -0.0, float("inf"), 1e-320, 1 + 2j, "", "é🙂\0", "\ud800", b"\xff"),
    *([], [1, [2, [3]]], (), (1,), (1, ("a", [b"b"])), set(), {1, "a"}, frozenset({(1, 2)}), {}, {"a": 1, "b": [2]}),
    *({1: "a", (1, 2): None, 2.5: [], None: 0, b"k": (), frozenset({1}): {}}, range(1, 9, 2), slice(1, None), deque([1], 3)),
    *(Counter("aab"), OrderedDict(b=1, a=2), defaultdict(list, {"a": [1]}), Decimal("1.10"), Fraction(-1, 3)),
    *(datetime.date(2020, 2, 29), datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.time(1, 2), datetime.timedelta(1, 2, 3)),
    *(int, list, ValueError, np.float32(1.5), np.int64(-7), np.bool_(True)),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_arrive_with_their_exact_type(value):
    for wrapped in (value, [value], (value, [value]), {"k": value}):
        arrived = CODEC.unpack(CODEC.pack(wrapped))
        assert type(arrived) is type(wrapped)
        assert repr(arrived) == repr(wrapped)


def test_not_a_number_and_arrays():
    assert math.isnan(CODEC.unpack(CODEC.pack(float("nan"))))
    for array in (np.arange(6).reshape(2, 3), np.zeros((0, 2)), np.array(["a", "bc"]), np.array([True]), np.float32([[1]])):
        arrived = CODEC.unpack(CODEC.pack([array]))[0]
        assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
        assert np.array_equal(arrived, array)
        arrived[...] = 0  # its own memory


def test_exceptions_arrive_by_class_and_arguments():
    for error in (ValueError("x", 1), KeyError("k"), StopIteration(3), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")):
        arrived = CODEC.unpack(CODEC.pack(error))
        assert (type(arrived), arrived.args) == (type(error), error.args)


def test_random_nested_values_arrive():
    chosen = random.Random(0)

    def value(depth):
        if depth == 0 or chosen.random() < 0.3:
            return chosen.choice(VALUES[:16])
        parts = [value(depth - 1) for _ in range(chosen.randrange(4))]
        return chosen.choice([parts, tuple(parts), {str(i): part for i, part in enumerate(parts)}])

    for _ in range(300):
        sent = value(6)
        assert repr(CODEC.unpack(CODEC.pack(sent))) == repr(sent)


def test_what_cannot_cross_says_why():
    cyclic = []
    cyclic.append(cyclic)
    deep = ()
    for _ in range(MAX_DEPTH + 1):
        deep = (deep,)
    for value in (cyclic, deep):
        with pytest.raises(CannotCrossError, match="nested"):
            CODEC.pack(value)
    with pytest.raises(CannotCrossError, match="type function"):
        CODEC.pack([lambda: 1])


def test_any_other_bytes_are_malformed_and_never_more():
    """Bit flips, cuts and noise: a plain value or an error, never another exception."""
    chosen = random.Random(1)
    packed = [CODEC.pack(value) for value in VALUES]
    outcomes = set()
    for _ in range(5000):
        data = bytearray(chosen.choice(packed))
        for _ in range(chosen.randrange(1, 4)):
            data[chosen.randrange(len(data))] = chosen.randrange(256)
        data = bytes(data[: chosen.randrange(len(data) + 1)]) if chosen.random() < 0.3 else bytes(data)
        try:
            CODEC.unpack(data)
        except MalformedValueError:
            outcomes.add("malformed")
        else:
            outcomes.add("value")
    assert outcomes == {"malformed", "value"}


def test_a_nested_bomb_is_refused_without_a_crash():
    data = b"\xc0"
    for _ in range(3000):
        inner = b"\x91" + data
        data = b"\xc9" + len(inner).to_bytes(4, "big") + b"\x01" + inner
    with pytest.raises(MalformedValueError, match="nested deeper"):
        CODEC.unpack(b"p" + data)
