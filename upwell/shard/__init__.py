"""Shards: an LSM of FAISS indexes, immutable segment by immutable segment.

keys.py names rows and finds them, segment.py is a segment's bytes, deletions.py the bitmap beside it, view.py one
immutable version of an index, resolve.py decides what a batch of mutations comes to, apply.py writes that and commits.
"""
