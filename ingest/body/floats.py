"""Numbers as clients send them, as float32."""

from __future__ import annotations

from array import array
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.body.precise import FLOAT32_END, describe
from upwell.errors import Invalid

_NUMBERS: Final = frozenset((int, float))


def read_numbers(given: list[Any] | npt.NDArray[np.float64], field: str) -> npt.NDArray[np.float32]:
    """Numbers as finite float32. Raises Invalid, which names the place in ``field`` of what is none."""
    wide = None
    if not isinstance(given, list):
        wide = given
    elif _NUMBERS.issuperset(map(type, given)):
        # By way of array: numpy takes twice as long over a list.
        wide = np.array(array("d", given))
    if wide is not None:
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float32)
        if np.isfinite(narrow).all():
            return narrow
    for place, number in enumerate(given if isinstance(given, list) else given.tolist()):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise Invalid(f"{field}[{place}]: expected a number, got {describe(number)}")
        if not -FLOAT32_END < number < FLOAT32_END:
            raise Invalid(
                f"{field}[{place}]: expected a float32, got {describe(number)}, which is outside its range"
            )
    raise AssertionError("numbers that are finite float32 and not")
