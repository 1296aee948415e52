"""What a row must be. Sizes are in bytes of UTF-8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from upwell.schema import IdType

#: Of an id where ids are integers. It is not said what was there instead: that may be long.
INT64_EXPECTED: Final = "this index takes only integers of 64 bits for ids: expected one, as a number or as its decimal digits without a plus or leading zeros"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The limits that one upload is held to. The defaults are Cloudflare's."""

    dimensions: int
    vectors_max: int
    #: Of the body once inflated.
    bytes_max: int
    id_bytes_max: int = 64
    #: What the index takes for an id.
    ids: IdType = IdType.TEXT
    namespace_bytes_max: int = 64
    #: Of the metadata as compact JSON.
    metadata_bytes_max: int = 10_240
    #: Of a vector's data, where it may have some.
    data_bytes_max: int = 0
    #: Leave out lines that cannot be accepted, instead of refusing the upload.
    discard: bool = False

    @property
    def line_bytes_max(self) -> int:
        """Of one vector's text, whatever is in it: more than numbers spelt out and metadata in escapes can need.

        As Python objects it takes up to thirty times as much.
        """
        return (1 << 20) + 8 * self.metadata_bytes_max + 6 * self.data_bytes_max

    def id_problem(self, id: str) -> str | None:
        """What is wrong with an id that is a text, and neither empty nor too long; None if nothing is."""
        return None if self.ids.takes(id) else INT64_EXPECTED

    def ids_fit(self, ids: pa.Array) -> npt.NDArray[np.bool_] | bool:
        """Which ids of a column, that are neither empty nor too long, are what ids must be; True: all of them."""
        if self.ids is IdType.TEXT:
            return True
        return np.array([id is not None and self.ids.takes(id) for id in ids.to_pylist()], np.bool_)

    @property
    def vectors_counted_max(self) -> int:
        """Beyond this number it is not counted how many there are too many."""
        return 10 * self.vectors_max
