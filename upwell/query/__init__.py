"""Asking an index: search.py and sparse.py rank, hybrid.py fuses, lookup.py fetches by id, ordered.py goes through all there is. All run on
one immutable view and block."""
