"""Asking an index: search.py ranks, lookup.py fetches by id. Both run on one immutable view and block."""
