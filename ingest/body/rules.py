"""What a row must be. Sizes are in bytes of UTF-8."""

from __future__ import annotations

from dataclasses import dataclass

from upwell.schema import IdType


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

    @property
    def vectors_counted_max(self) -> int:
        """Beyond this number it is not counted how many there are too many."""
        return 10 * self.vectors_max
