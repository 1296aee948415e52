"""The log: where a mutation becomes ours to keep.

Per index a dense sequence of immutable entries, ``index/{id}/log/{position:020d}``, positions from 1. Appending is
create-if-absent at the next position; the store is the referee, so there are no gaps and no second writer, and Redis has
no part in it. Bytes: entry.py. Writing: writer.py, grouped by appender.py. Reading: reader.py. Naming: receipt.py.
"""
