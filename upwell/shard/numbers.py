"""Numbers of many rows, exact: each a double and, for an integer that no double is, what it has beyond its nearest one.

Doubles are JSON's numbers to most who read it, and integers up to 2^53 are all among them. One beyond is a pair of its nearest double and
the small ``rest`` that is missing, so that pairs compare as the numbers do: first by the double, then by the rest. Doubles alone do for
whatever has no such integer.

Who asks with an int asks for exactly that number. Who asks with a float means doubles, in which 2^53 and 2^53 + 1 are one. 1 and 1.0 are
the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from upwell.shard.deletions import Mask

#: From here on not every integer is a double.
ROUNDED_FROM: Final = 2.0**53
_INT64_MIN: Final = -(2**63)
#: What orjson reads and writes as integers; beyond, a number is as good as its nearest double.
INTEGER_MIN: Final = _INT64_MIN
INTEGER_MAX: Final = 2**64 - 1

Doubles = npt.NDArray[np.float64]
Rests = npt.NDArray[np.int16]
Integers = npt.NDArray[np.int64]


class Numbers(NamedTuple):
    """Numbers, one per row. ``rests``: what each has beyond its double; None: nothing."""

    doubles: Doubles
    rests: Rests | None = None


class Number(NamedTuple):
    """A number that others are compared with: a double, and what it has beyond it. ``rest`` None: it stands for whatever is nearest to
    that double, as it does where numbers are doubles."""

    double: float
    rest: int | None = None

    @classmethod
    def of(cls, value: float) -> Number:
        """What is exactly ``value`` if that is an int of 64 bits, else what is nearest to it; beyond all doubles is endless."""
        try:
            double = float(value)
        except OverflowError:
            return cls(inf if value > 0 else -inf)
        if isinstance(value, int) and INTEGER_MIN <= value <= INTEGER_MAX:
            return cls(double, value - int(double))
        return cls(double)


def among(numbers: Numbers, wanted: list[Number]) -> Mask:
    """Which are one of these: bool (rows,)."""
    doubles, rests = numbers
    if rests is None:
        return np.isin(doubles, [one.double for one in wanted if not one.rest])
    mask = np.isin(doubles, [one.double for one in wanted if one.rest is None])
    exact = [complex(one.double, one.rest) for one in wanted if one.rest is not None]
    level = np.flatnonzero(np.isin(doubles, [one.real for one in exact]))
    # The two parts of a complex number stay apart, so that it stands for a pair.
    mask[level] |= np.isin(doubles[level] + 1j * rests[level], exact)
    return mask


def among_values(numbers: Numbers, values: Sequence[float]) -> Mask:
    """The same of numbers as they come, ints and floats, of which there may be hundreds of thousands: bool (rows,)."""
    # What has nothing beyond its double needs no number of its own.
    plain = np.fromiter((one for one in values if not _is_rounded(one)), np.float64)
    mask = np.isin(numbers.doubles, plain)
    large = [Number.of(one) for one in values if _is_rounded(one)]
    return mask | among(numbers, large) if large else mask


def _is_rounded(value: float) -> bool:
    return isinstance(value, int) and not -ROUNDED_FROM < value < ROUNDED_FROM


def above(numbers: Numbers, bound: Number, *, included: bool) -> Mask:
    """Which are larger than ``bound``, or (``included``) equal to it: bool (rows,)."""
    doubles, rests = numbers
    if bound.rest is None or (rests is None and bound.rest == 0):
        return doubles >= bound.double if included else doubles > bound.double
    mine = np.int16(0) if rests is None else rests
    beyond = mine >= bound.rest if included else mine > bound.rest
    return np.asarray((doubles > bound.double) | ((doubles == bound.double) & beyond))


def equal(one: Numbers, other: Numbers) -> Mask:
    """Which are equal to the other's of the same row: bool (rows,)."""
    return np.asarray((one.doubles == other.doubles) & (_rests(one) == _rests(other)))


def less(one: Numbers, other: Numbers) -> Mask:
    """Which are less than the other's of the same row: bool (rows,)."""
    level = (one.doubles == other.doubles) & (_rests(one) < _rests(other))
    return np.asarray((one.doubles < other.doubles) | level)


def _rests(numbers: Numbers) -> Rests | np.int16:
    return np.int16(0) if numbers.rests is None else numbers.rests


def from_integers(integers: Integers) -> Numbers:
    """Integers of 64 bits as such numbers."""
    doubles = integers.astype(np.float64)
    # Differences that overflow come round again, so they are right even where a double is 2^63.
    rests = (integers - _rounded(doubles)).astype(np.int16)
    return Numbers(doubles, rests if rests.any() else None)


def to_integers(numbers: Numbers) -> tuple[Integers, Mask]:
    """The integers of 64 bits that they are, and which of them are such: bool (rows,). Others are any integer."""
    doubles, rests = numbers
    whole = (doubles == np.trunc(doubles)) & (np.abs(doubles) <= 2.0**63)
    integers = _rounded(np.where(whole, doubles, 0.0))
    if rests is None:
        return integers, whole & (doubles < 2.0**63)
    whole &= (doubles < 2.0**63) | (rests < 0)
    return integers + rests, whole


def _rounded(doubles: Doubles) -> Integers:
    """Whole doubles as integers; 2^63, which none is, as the one that follows the largest when counting comes round."""
    top = doubles >= 2.0**63
    return np.where(top, _INT64_MIN, np.where(top, 0.0, doubles).astype(np.int64))


def calculated(numbers: Numbers, operator: str, operand: float) -> tuple[Numbers, Mask]:
    """What an operation makes of each number, and of which it makes one at all: bool (rows,).

    An integer and an ``operand`` that is an int give an integer, exactly: the quotient without its fraction, and a remainder with the sign
    of the row's number. All else is calculated with doubles, and so are results beyond 64 bits. An operand that is a float, 2.0, so divides
    integers as doubles. Division by zero, and what no double can hold, makes no number.
    """
    if operand == 0 and operator in "/%":
        return numbers, np.zeros(len(numbers.doubles), dtype=bool)
    with np.errstate(all="ignore"):
        doubles = _of_doubles(numbers.doubles, operator, float(operand))
        made = np.asarray(np.isfinite(doubles))
        if not isinstance(operand, int) or not _INT64_MIN <= operand < 2**63:
            return Numbers(doubles), made
        integers, whole = to_integers(numbers)
        results, fits = _of_integers(integers, operator, operand)
    whole &= fits
    exact = from_integers(np.where(whole, results, 0))
    together = np.where(whole, exact.doubles, doubles)
    return Numbers(together, exact.rests), made | whole


def _of_doubles(doubles: Doubles, operator: str, operand: float) -> Doubles:
    match operator:
        case "+":
            return doubles + operand
        case "-":
            return doubles - operand
        case "*":
            return doubles * operand
        case "/":
            return doubles / operand
        case "%":
            return np.asarray(np.fmod(doubles, operand))
    raise ValueError(f"no operator: {operator}")


def _of_integers(integers: Integers, operator: str, operand: int) -> tuple[Integers, Mask]:
    """The results, and which of them are of 64 bits."""
    right = np.int64(operand)
    if operator in "/%":
        everywhere = np.ones(len(integers), dtype=bool)
        if operand == -1:
            # The one division that can leave 64 bits.
            return (-integers, integers != _INT64_MIN) if operator == "/" else (integers * 0, everywhere)
        remainders = np.fmod(integers, right)
        return (remainders if operator == "%" else (integers - remainders) // right), everywhere
    results = {"+": integers + right, "-": integers - right, "*": integers * right}[operator]
    about = _of_doubles(integers.astype(np.float64), operator, float(operand))
    # What overflowed came round to the other sign, if it is not far beyond.
    level = (results < 0) == (about < 0)
    return results, (np.abs(about) < 2.0**62) | (level & (np.abs(about) < 1.5 * 2.0**63))
