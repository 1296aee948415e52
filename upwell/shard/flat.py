"""A flat FAISS index as bytes, made without FAISS: its header, before a matrix that is handed to the disk as it is.

So rows are not copied into an index and out of it again, and can be read in place.
"""

from __future__ import annotations

import faiss

from upwell.changeset import Matrix
from upwell.errors import Corrupt
from upwell.shard.metric import Metric

#: A serialised IndexFlat is this many bytes and then its matrix (checked at every build).
FLAT_HEADER_BYTES = 45
FLAT_PADDING = -FLAT_HEADER_BYTES % 64


def flat_header(vectors: Matrix, metric: Metric) -> bytes:
    """The first bytes of ``IndexFlat`` over ``vectors``: FAISS writes them for one row, and the two counts are patched.

    Raises Corrupt if this FAISS does it otherwise.
    """
    index = faiss.IndexFlat(vectors.shape[1], metric.faiss_metric)
    index.add(vectors[:1])
    one = faiss.serialize_index(index).tobytes()
    if len(one) != FLAT_HEADER_BYTES + vectors[:1].nbytes:
        raise Corrupt("this FAISS lays a flat index out in another way than Upwell knows", got=len(one))
    header = bytearray(one[:FLAT_HEADER_BYTES])
    # "IxFI" d:int32 ntotal:int64 …  and, last before the matrix, its length in float32 words:uint64
    header[8:16] = len(vectors).to_bytes(8, "little")
    header[-8:] = vectors.size.to_bytes(8, "little")
    return bytes(header)
